"""ONNX files: what is in them, that they are checked, int8, and the command."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from example_arrays import arrays

from siamcar_ros.commands import export as command
from siamcar_ros.model import SiamCAR
from siamcar_ros.runtime import DeviceError, load_network
from siamcar_ros.runtime.export import check_onnx, difference, export_onnx
from siamcar_ros.runtime.graphs import example_inputs
from siamcar_ros.runtime.onnx_files import GraphFacts, OnnxFiles
from siamcar_ros.runtime.opencv_network import clips_as_attributes
from siamcar_ros.runtime.quantize import equalize_cross_layer, quantize
from siamcar_ros.runtime.source import model_source
from siamcar_ros.runtime.tensors import TensorAdapter

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def files(compact: SiamCAR, tmp_path_factory: pytest.TempPathFactory) -> OnnxFiles:
    folder = tmp_path_factory.mktemp("exported")
    return export_onnx(compact, folder / "compact.safetensors", "banded")


def cached_onnx(model: SiamCAR) -> OnnxFiles:
    return model_source(model).graphs()


def test_the_search_graph_suits_tensorrt(files: OnnxFiles) -> None:
    """Any batch, and no convolution whose kernel is not a constant."""
    graph = onnx.load(str(files.search)).graph
    onnx.checker.check_model(str(files.search))
    assert [entry.name for entry in graph.input] == ["x", "template0", "template1", "template2"]
    assert [entry.name for entry in graph.output] == ["cls", "reg", "cen", "features"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param
    constants = {entry.name for entry in graph.initializer}
    kernels = [node.input[1] for node in graph.node if "Conv" in node.op_type]
    assert kernels
    assert constants.issuperset(kernels)


def test_it_is_checked(files: OnnxFiles, compact: SiamCAR, tmp_path: Path) -> None:
    assert check_onnx(compact, files) <= 1e-3
    changed = onnx.load(str(files.search))
    for entry in changed.graph.initializer:
        array = onnx.numpy_helper.to_array(entry)
        if array.ndim == 4:
            entry.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(1.1), entry.name))
            break
    broken = OnnxFiles(files.template, tmp_path / "compact.search.onnx")
    onnx.save(changed, str(broken.search))
    with pytest.raises(ValueError, match="differs from PyTorch"):
        check_onnx(compact, broken)


@pytest.mark.parametrize(("last", "output"), [("cls_cen", 0), ("cls_cen", 2), ("log_distances", 1)])
def test_maps_that_are_not_finite_do_not_pass(
    files: OnnxFiles, compact: SiamCAR, tmp_path: Path, last: str, output: int
) -> None:
    changed = onnx.load(str(files.search))
    (kernel,) = (entry for entry in changed.graph.initializer if f"{last}.weight" in entry.name)
    damaged = onnx.numpy_helper.to_array(kernel).copy()
    damaged[output] = np.nan
    kernel.CopyFrom(onnx.numpy_helper.from_array(damaged, kernel.name))
    broken = OnnxFiles(files.template, tmp_path / "compact.search.onnx")
    onnx.save(changed, str(broken.search))
    with pytest.raises(ValueError, match="differs from PyTorch by nan"):
        check_onnx(compact, broken)


def test_the_cache_is_used(compact: SiamCAR, cache: Path) -> None:
    first = cached_onnx(compact)
    assert cache in first.search.parents
    written = first.search.stat().st_mtime_ns
    assert cached_onnx(compact).search.stat().st_mtime_ns == written


def test_exported_files_are_loaded(files: OnnxFiles, compact: SiamCAR) -> None:
    network = load_network("compact", files.search, device="cpu")
    z, x = example_inputs(compact, 2)
    with torch.inference_mode():
        expected = compact(x, compact.template(z))
    assert network.backend == "onnxruntime"
    assert difference(expected, network(x.numpy(), network.template(z.numpy()))) <= 1e-3


def test_files_tell_nothing_of_the_machine(files: OnnxFiles) -> None:
    for path in (files.template, files.search):
        assert str(Path(command.__file__).parents[2]).encode() not in path.read_bytes()


def test_wrong_files_are_refused(files: OnnxFiles, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="holds the network 'compact', not 'resnet50'"):
        load_network("resnet50", files.search)
    lone = tmp_path / "compact.search.onnx"
    lone.write_bytes(files.search.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"compact\.template\.onnx"):
        load_network("compact", lone)
    (tmp_path / "compact.template.onnx").write_bytes(b"no graph")
    lone.write_bytes(b"no graph either")
    with pytest.raises(DeviceError, match="not an ONNX file that this version"):
        load_network("compact", lone)


def uneven(model: SiamCAR) -> SiamCAR:
    """The same function, with responses whose channels differ in range a hundredfold."""
    model = copy.deepcopy(model)
    assert model.neck is not None
    generator = torch.Generator().manual_seed(0)
    factors = []
    for norm in model.neck.modules():
        if not isinstance(norm, torch.nn.BatchNorm2d):
            continue
        factor = 10 ** (torch.rand(norm.num_features, generator=generator) - 0.5)
        norm.weight.data *= factor
        norm.bias.data *= factor
        factors.append(factor**2)  # of the template's features, too
    model.down.weight.data /= torch.cat(factors)[:, None, None, None]
    return model


@pytest.mark.parametrize("kind", ["compact", "uneven", "alexnet"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_int8_stays_near(
    compact: SiamCAR, alexnet: SiamCAR, tmp_path: Path, kind: str, backend: str
) -> None:
    pytest.importorskip(backend)
    model = {"compact": compact, "alexnet": alexnet}.get(kind) or uneven(compact)
    pairs = [arrays(model, 1, seed) for seed in range(4)]
    output = tmp_path / "some.search.int8.onnx"
    quantize(cached_onnx(model), pairs, output)
    network = load_network(model, device="cpu", backend=backend, precision="int8", weights=output)
    reference = TensorAdapter(model)
    for z, x in pairs:
        cls, reg, cen = reference(x, reference.template(z))
        got = network(x, network.template(z))
        for a, b in ((cls, got.cls), (np.log(reg), np.log(got.reg)), (cen, got.cen)):
            assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.98
        pixels = np.ascontiguousarray(x.transpose(0, 2, 3, 1), np.uint8)
        assert difference(got, network(pixels, network.template(z))) <= 0.02
    batch = np.concatenate([x for _, x in pairs[:2]])
    s = model.score_size
    assert network(batch, network.template(pairs[0][0]))[0].shape == (2, 2, s, s)


@pytest.mark.parametrize("kind", ["compact", "alexnet"])
def test_equalized_channels_leave_the_graph_computing_the_same(
    compact: SiamCAR, alexnet: SiamCAR, kind: str
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model = {"compact": uneven(compact), "alexnet": alexnet}[kind]
    z, x = example_inputs(model, 1)
    with torch.inference_mode():
        levels = model.template(z)
    feed = {"x": x.numpy()} | {f"template{i}": level.numpy() for i, level in enumerate(levels)}
    graph = onnx.load(str(cached_onnx(model).search))
    kernels = {e.name: onnx.numpy_helper.to_array(e).copy() for e in graph.graph.initializer}

    def maps() -> list[np.ndarray]:
        session = runtime.InferenceSession(
            graph.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return list(session.run(["cls", "reg", "cen"], feed))

    before = maps()
    equalize_cross_layer(graph, [feed])
    for one, other in zip(before, maps(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
    changed = {
        entry.name
        for entry in graph.graph.initializer
        if not np.array_equal(onnx.numpy_helper.to_array(entry), kernels[entry.name])
    }
    assert "reduce.weight" in changed
    # A normalization between two layers undoes what is done to the first.
    assert ("model.car_head.cls_tower.3.weight" in changed) == (kind == "compact")


def test_int8_is_of_all_convolutions_but_the_correlation(compact: SiamCAR, tmp_path: Path) -> None:
    output = tmp_path / "compact.search.int8.onnx"
    # The dark half of the bytes, to see that they are taken for themselves nevertheless.
    z, x = arrays(compact, 1)
    pairs = [(z / 2, x / 2)]
    quantize(cached_onnx(compact), pairs, output)
    graph = onnx.load(str(output)).graph
    constants = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    assert constants["x_scale"] == 1
    assert constants["x_zero_point"] == 0
    weights = [array for array in constants.values() if array.dtype == np.int8 and array.ndim == 4]
    assert len(weights) == 20
    # Two products of a byte and a weight fit into 16 bits, in which AVX2 adds them.
    assert max(2 * 255 * int(abs(array.astype(int)).max()) for array in weights) < 2**15
    assert GraphFacts.read(output).weight_bits == 7
    output.write_bytes(output.read_bytes().replace(b'"weight_bits": 7', b'"weight_bits": 8'))
    with pytest.raises(DeviceError, match="not an ONNX file that this version"):
        GraphFacts.read(output)
    made_by = {output: node for node in graph.node for output in node.output}
    layers = [node for node in graph.node if node.op_type == "Conv"]
    quantized = [
        all(made_by[name].op_type == "DequantizeLinear" for name in node.input[:2])
        for node in layers
        if "template" not in made_by[node.input[1]].input[0]
    ]
    assert len(layers) == 23
    assert quantized == [True] * 20
    # Nothing is quantized before its rectifier.
    sources = {n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"} & set(made_by)
    assert not any(n.op_type == "Relu" and n.input[0] in sources for n in graph.node)


def test_int8_kernels_keep_their_sums(compact: SiamCAR, tmp_path: Path) -> None:
    files, output = cached_onnx(compact), tmp_path / "compact.search.int8.onnx"
    quantize(files, [arrays(compact, 1)], output)
    name = "model.backbone.stem.0.0.weight"

    def constant(path: Path, name: str) -> np.ndarray:
        graph = onnx.load(str(path)).graph
        (entry,) = (entry for entry in graph.initializer if entry.name == name)
        return np.asarray(onnx.numpy_helper.to_array(entry), np.float64)

    # Equalizing scales this layer's rows alone, which their largest weight shows.
    exact = constant(files.search, name)
    exact *= 64 / abs(exact).max((1, 2, 3), keepdims=True)
    error = constant(output, f"{name}_quantized") - exact
    assert abs(error).max() < 1
    assert abs(error.sum((2, 3))).max() < 0.501


def test_int8_without_images_is_refused(compact: SiamCAR, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are none"):
        quantize(cached_onnx(compact), [], tmp_path / "x.search.int8.onnx")


def test_int8_of_the_banded_form_is_refused(
    files: OnnxFiles, compact: SiamCAR, tmp_path: Path
) -> None:
    output = tmp_path / "x.search.int8.onnx"
    with pytest.raises(ValueError, match="form 'grouped'"):
        quantize(files, [arrays(compact, 1)], output)
    assert not output.exists()


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(list(words))


def _sequence(folder: Path, absent: int | None = None) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    ground = cv2.resize(random.integers(0, 255, (24, 32, 3)).astype(np.uint8), (320, 240))
    patch = cv2.resize(random.integers(0, 255, (6, 6, 3)).astype(np.uint8), (40, 40))
    boxes = []
    for i in range(5):
        image = ground.copy()
        x, y = 100 + 4 * i, 80 + 2 * i
        image[y : y + 40, x : x + 40] = patch
        cv2.imwrite(str(folder / f"{i + 1:08d}.png"), image)
        boxes.append("0,0,0,0" if i == absent else f"{x},{y},40,40")
    (folder / "groundtruth.txt").write_text("\n".join(boxes) + "\n")


def test_the_command_writes_int8_and_tells_what_it_costs(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _sequence(tmp_path / "sequences" / "patch", absent=2)
    status = command.run(
        _arguments(
            *("--network", "compact", "--weights", str(weights), "--int8"),
            *("--calibration", str(tmp_path / "sequences"), "--output", str(tmp_path / "out")),
        )
    )
    printed = capsys.readouterr().out
    assert status == 0
    assert "AO over 1 sequence: fp32" in printed
    assert "calibrated on 3 inputs" in printed
    for name in ("compact.template.onnx", "compact.search.onnx", "compact.search.int8.onnx"):
        assert (tmp_path / "out" / name).is_file()


def test_a_sequence_without_truth_after_its_start_is_not_scored(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("patch", "gone"):
        _sequence(tmp_path / "sequences" / name)
    annotation = tmp_path / "sequences" / "gone" / "groundtruth.txt"
    first, *others = annotation.read_text().splitlines()
    annotation.write_text("\n".join([first, *["0,0,0,0"] * len(others)]) + "\n")
    command.run(
        _arguments(
            *("--weights", str(weights), "--output", str(tmp_path / "out"), "--int8"),
            *("--calibration", str(tmp_path / "sequences" / "patch"), "--pairs", "2"),
            *("--score-on", str(tmp_path / "sequences")),
        )
    )
    assert "AO over 2 sequences: fp32" in capsys.readouterr().out


def test_the_command_takes_plain_images(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _sequence(tmp_path / "images")
    (tmp_path / "images" / "groundtruth.txt").unlink()
    command.run(
        _arguments(
            *("--weights", str(weights), "--int8", "--calibration", str(tmp_path / "images")),
            *("--output", str(tmp_path / "out"), "--pairs", "2"),
        )
    )
    printed = capsys.readouterr().out
    assert "calibrated on 2 inputs" in printed
    assert "AO not measured" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--int8"], "needs --calibration"),
        (["--int8", "--calibration", "nowhere"], "folder nowhere does not exist"),
        (["--score-on", "footage"], "--score-on needs --int8"),
        (["--pairs", "8"], "--pairs needs --int8"),
        (["--network", "resnet34"], "no weights ship for resnet34"),
    ],
)
def test_the_command_refuses(words: list[str], message: str, weights: Path, tmp_path: Path) -> None:
    given = words if "--network" in words else [*words, "--weights", str(weights)]
    with pytest.raises((ValueError, OSError), match=message):
        command.run(_arguments(*given, "--output", str(tmp_path)))
    assert not list(tmp_path.glob("*.onnx"))


def test_opencv_4_reads_limits_of_clip_as_attributes() -> None:
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    limits = [numpy_helper.from_array(np.float32(v), n) for v, n in ((-1.5, "low"), (6, "high"))]
    large = numpy_helper.from_array(np.arange(5000, dtype=np.float32), "large")
    nodes = [
        helper.make_node("Add", ["x", "large"], ["sum"]),
        helper.make_node("Clip", ["sum", "low", "high"], ["y"], name="clip"),
    ]
    ports = [helper.make_tensor_value_info(name, 1, [5000]) for name in "xy"]
    graph = helper.make_graph(nodes, "some", ports[:1], ports[1:], [*limits, large])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    written = onnx.load_from_string(clips_as_attributes(model.SerializeToString()))
    (clip,) = (node for node in written.graph.node if node.op_type == "Clip")
    assert list(clip.input) == ["sum"]
    assert {each.name: helper.get_attribute_value(each) for each in clip.attribute} == {
        "min": -1.5,
        "max": 6.0,
    }
    for changed in (clip, model.graph.node[1]):
        del changed.attribute[:], changed.input[:]
    assert written == model, "nothing else is changed"
