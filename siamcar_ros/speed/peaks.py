"""What a machine can multiply at most, and what a network asks of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from siamcar_ros.model import SiamCAR, fold_batchnorm
from siamcar_ros.runtime.graphs import example_inputs
from siamcar_ros.runtime.torch_network import DTYPES
from siamcar_ros.speed.measure import interleave

SIDE = {"cpu": 2048, "cuda": 8192}


def matrix_multiply(precision: str, device: str, threads: int) -> tuple[Callable[[], Any], float]:
    """The fastest large matrix product found, and its operations (twice its multiplications).

    fp32, bf16 and fp16 by PyTorch, as a product and as the 1x1 convolution that is one, whose
    library is another on many CPUs; int8 on a CPU by ONNX Runtime, in 8 x 8 bits to 32.

    Raises:
        DeviceError: int8, and ``onnx`` or ``onnxruntime`` is not installed.
    """
    side = SIDE[device.partition(":")[0]]
    operations = 2.0 * side**3
    if precision == "int8":
        return _int8_product(side, threads), operations
    dtype = DTYPES[precision]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    image = a.T.reshape(1, side, side // 32, 32).contiguous(memory_format=torch.channels_last)
    kernel = b.T.reshape(side, side, 1, 1).contiguous(memory_format=torch.channels_last)

    def product() -> None:
        a @ b
        if device != "cpu":
            torch.cuda.synchronize(device)

    def convolution() -> None:
        torch.nn.functional.conv2d(image, kernel)
        if device != "cpu":
            torch.cuda.synchronize(device)

    timings = interleave({"product": product, "convolution": convolution}, 0.5)
    faster = timings["convolution"].faster_than(timings["product"]) > 1
    return (convolution if faster else product), operations


def _int8_product(side: int, threads: int) -> Callable[[], Any]:
    from siamcar_ros.runtime.network import import_or_refuse

    import_or_refuse("onnx", "int8 matrix product", "onnx")
    runtime = import_or_refuse("onnxruntime", "int8 matrix product", "onnx")
    from onnx import TensorProto, helper, numpy_helper, save

    random = np.random.default_rng(0)
    weights = random.integers(-64, 64, (side, side)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [side, side])],
        [helper.make_tensor_value_info("c", TensorProto.INT32, [side, side])],
        [numpy_helper.from_array(weights, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product.onnx"
        save(model, str(path))
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {"a": random.integers(0, 255, (side, side)).astype(np.uint8)}
    return lambda: session.run(None, feed)


def search_operations(model: SiamCAR) -> float:
    """Operations of one frame, twice the multiplications; the template's are not in it."""
    folded = fold_batchnorm(model)
    z, x = example_inputs(folded, 1)
    with torch.no_grad():
        template = folded.template(z)
        with FlopCounterMode(display=False) as counter:
            folded(x, template)
    return float(counter.get_total_flops())
