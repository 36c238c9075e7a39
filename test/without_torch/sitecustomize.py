"""Put this folder in PYTHONPATH for a Python with numpy and OpenCV but no inference library."""

import sys

BLOCKED = ("torch", "openvino", "onnxruntime", "onnx", "safetensors")


class Blocker:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocker)  # type: ignore[arg-type]
