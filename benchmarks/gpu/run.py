"""Everything that a GPU does here, measured in a few minutes: one page and one JSON file.

Each part runs in a process of its own, so that a kernel that crashes or hangs costs only its own
part's figures. On "cpu" the same code runs with the networks of a CPU, as a rehearsal.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from siamcar_ros.runtime.network import is_installed
from siamcar_ros.speed.tables import Table, shown

_ROOT = Path(__file__).resolve().parents[2]
TEST_FOLDERS = ("test/runtime", "test/model", "test/training")
# Shares of the time, in the order in which they run.
SHARES = {"inference": 0.38, "tests": 0.22, "training": 0.36, "providers": 0.04}
_GRACE = 1.6  # a part that takes this many times its share is ended


@dataclass(frozen=True)
class GpuOptions:
    """What to measure, and for how long.

    Attributes:
        device: "cuda:N" or "cpu".
        seconds: in all, about.
        quick: only two networks and the smallest sizes, to see whether it runs.
        parts: keys of :data:`SHARES`.
    """

    device: str
    seconds: float = 300.0
    quick: bool = False
    parts: tuple[str, ...] = tuple(SHARES)

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks to measure: the paper's, and the small ones."""
        return ("alexnet", "compact") if self.quick else ("resnet50", "mobile", "compact")


class Clock:
    """The time that a part may take; without `end` it never runs out."""

    def __init__(self, seconds: float, end: bool = True) -> None:
        self.seconds, self._end, self._begin = seconds, end, time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._begin

    def has(self, share: float) -> bool:
        """Whether less than this share of the time is spent."""
        return not self._end or self.spent < share * self.seconds


def measure_gpu(options: GpuOptions, output: Path) -> dict[str, Any]:
    """Run all parts; write ``gpu.json`` and ``gpu.md`` after each.

    Args:
        options: what, and for how long.
        output: the folder to write into; it is made.

    Returns:
        what is in ``gpu.json``: "machine", and for each part its "tables", "notes" and "seconds".
    """
    output.mkdir(parents=True, exist_ok=True)
    machine = describe_gpu(options.device)
    content: dict[str, Any] = {"machine": machine, "parts": {}}
    pages = "# GPU\n\n" + "".join(f"- {key}: {value}\n" for key, value in machine.items())
    print(pages, flush=True)
    for name in options.parts:
        begin = time.perf_counter()
        part = _run_apart(name, options)
        part["seconds"] = round(time.perf_counter() - begin, 1)
        content["parts"][name] = part
        pages += page(name, part)
        print(page(name, part), flush=True)
        (output / "gpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (output / "gpu.md").write_text(pages, encoding="utf-8")
    return content


def failed(content: Mapping[str, Any]) -> list[str]:
    """The parts that did not finish, and "tests" if any test failed."""
    return [name for name, part in content["parts"].items() if part.get("failed")]


def describe_gpu(device: str) -> dict[str, str]:
    """GPU, driver, versions and processor."""
    import torch

    from siamcar_ros.speed.measure import describe_machine

    facts: dict[str, str] = {}
    if device != "cpu":
        properties = torch.cuda.get_device_properties(device)
        facts["GPU"] = (
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
            f"{properties.multi_processor_count} multiprocessors"
        )
        facts["driver"] = _driver()
        facts["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    facts |= describe_machine(len(os.sched_getaffinity(0)))
    for package in ("triton", "onnxruntime-gpu", "tensorrt"):
        try:
            facts["versions"] += f", {package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "not known (nvidia-smi does not run)"
    return shown.stdout.split("\n")[0].strip()


def _run_apart(name: str, options: GpuOptions) -> dict[str, Any]:
    """Run a part in a process of its own; return its content."""
    seconds = options.seconds * SHARES[name] / sum(SHARES[part] for part in options.parts)
    patience = _GRACE * seconds + (600 if options.quick else 60)
    with tempfile.TemporaryDirectory(prefix="siamcar_gpu_") as folder:
        result = Path(folder) / "part.json"
        task = {"part": name, "options": asdict(options), "seconds": seconds, "result": str(result)}
        command = [sys.executable, "-m", "benchmarks.gpu.run", json.dumps(task)]
        process = subprocess.Popen(command, env=_environment(), start_new_session=True, stdout=2)
        ended = ""
        try:
            status = process.wait(timeout=patience)
            if status:
                ended = f"ended with status {status}"
        except subprocess.TimeoutExpired:
            ended = f"was ended after {patience:.0f} seconds"
        finally:
            _end(process)
        part: dict[str, Any] = {"tables": [], "notes": []}
        if result.is_file():
            part |= json.loads(result.read_text(encoding="utf-8"))
    if ended:
        part["failed"] = True
        part["notes"].append(f"the process of this part {ended}")
    return part


def _environment() -> dict[str, str]:
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _end(process: subprocess.Popen[Any]) -> None:
    """End a process and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Part:
    """The results of one part so far, written to a file after each step."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.tables: list[Table] = []
        self.notes: list[str] = []
        self.failed = False

    def table(self, table: Table) -> Table:
        """Add a table."""
        self.tables.append(table)
        return table

    def attempt(self, what: str, step: Callable[[], Any]) -> Any:
        """Do a step; if it fails, note why and go on."""
        try:
            return step()
        except Exception as error:  # of PyTorch, cuDNN, Triton, the driver: no common base
            import traceback

            traceback.print_exc()
            self.failed = True
            first = str(error).strip().partition("\n")[0]
            self.notes.append(f"{what} failed: {type(error).__name__}: {first}")
            return None
        finally:
            self.write()

    def write(self) -> None:
        """Write the results so far."""
        content = {
            "tables": [table.as_dict() for table in self.tables],
            "notes": self.notes,
            "failed": self.failed,
        }
        self._path.write_text(json.dumps(content, default=str), encoding="utf-8")


def run_tests(part: Part, options: GpuOptions, clock: Clock) -> None:
    """Run the tests marked ``gpu``."""
    folders = [folder for folder in TEST_FOLDERS if (_ROOT / folder).is_dir()]
    if len(folders) < len(TEST_FOLDERS) or not is_installed("pytest"):
        part.notes.append(
            "tests left out: this copy of the repository has none, or pytest is not installed"
        )
        return
    if options.quick:
        folders = folders[:1]
    with tempfile.TemporaryDirectory(prefix="siamcar_tests_") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}", "--durations=8", *folders]
        if is_installed("xdist"):  # most of the tests' time is the CPU's
            workers = max(1, len(os.sched_getaffinity(0)) // 2)
            command += ["-n", str(workers), "--dist", "worksteal"]
        environment = {**_environment(), "OMP_NUM_THREADS": "2"}
        tested = subprocess.Popen(command, cwd=_ROOT, env=environment)
        try:
            tested.wait(None if options.quick else 1.3 * clock.seconds)
        except subprocess.TimeoutExpired:
            tested.send_signal(signal.SIGINT)  # it reports on those that it has run
            part.notes.append(f"stopped after {clock.spent:.0f} seconds: the others were not run")
            tested.wait(30)
        if not report.is_file():
            part.failed = True
            part.notes.append(f"pytest ended with status {tested.returncode} and no report")
            return
        table = part.table(Table("tests marked gpu", {"name": "", "count": "tests"}))
        rows, messages = _outcomes(report)
    table.rows += [{"name": name, "count": count} for name, count in rows.items()]
    table.notes += messages
    part.failed = bool(rows["failed"]) or tested.returncode not in (0, 2, 5)  # 2: stopped, 5: none


def _outcomes(report: Path) -> tuple[dict[str, int], list[str]]:
    """Counts from pytest's report, and a line for each failure and each reason for skipping."""
    counts = {"passed": 0, "skipped": 0, "failed": 0}
    failures, reasons = [], set()
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        if bad is not None:
            counts["failed"] += 1
            told = (bad.get("message") or "").partition("\n")[0][:200]
            failures.append(f"{case.get('classname')}::{case.get('name')}: {told}")
        elif skipped is not None:
            counts["skipped"] += 1
            reasons.add(f"skipped: {skipped.get('message')}")
        else:
            counts["passed"] += 1
    return counts, failures + sorted(reasons)


def measure_providers(part: Part, options: GpuOptions, clock: Clock) -> None:
    """Time ONNX Runtime's CUDA and TensorRT providers, where they are installed."""
    from benchmarks.contestants import Film, model_of
    from siamcar_ros.runtime import DeviceError, load_network
    from siamcar_ros.speed.measure import interleave
    from siamcar_ros.tracking import SiamCarTracker

    if options.device == "cpu":
        wanted = {"fp32": ("ONNX Runtime on the CPU", "onnxruntime", _onnxruntime_has("CPU"))}
    else:
        tensorrt = is_installed("tensorrt") and _onnxruntime_has("Tensorrt")
        wanted = {
            "fp32": ("ONNX Runtime's CUDA provider", "onnxruntime-gpu", _onnxruntime_has("CUDA")),
            "fp16": ("ONNX Runtime's TensorRT provider", "onnxruntime-gpu or tensorrt", tensorrt),
        }
    part.notes += [
        f"{what} left out: the package {package} is not installed"
        for what, package, there in wanted.values()
        if not there
    ]
    film = Film(4)
    table = part.table(
        Table("ONNX Runtime, image to box", {"name": "", "ms": "ms", "fps": "frames/s"})
    )
    for precision in (precision for precision, (*_, there) in wanted.items() if there):
        for name in options.networks:
            if not clock.has(0.8):
                part.notes.append(f"{name}, {precision}: no time left")
                continue

            def one(name: str = name, precision: str = precision) -> None:
                model, params, _ = model_of(name)
                try:
                    network = load_network(
                        model, device=options.device, backend="onnxruntime", precision=precision
                    )
                except DeviceError as error:
                    part.notes.append(f"{name}, {precision} left out: {error}")
                    return
                tracker = SiamCarTracker(network, params)
                tracker.init(film.images[0], film.boxes[0])
                images = film.endless()
                timing = interleave({"": lambda: tracker.update(next(images))}, 0.5)[""]
                row = {"name": f"{name}, {precision}", "ms": 1e3 * timing.median}
                table.rows.append(row | {"fps": 1 / timing.median})

            part.attempt(f"{name}, {precision}", one)


def _onnxruntime_has(provider: str) -> bool:
    if not is_installed("onnxruntime"):
        return False
    import onnxruntime

    return f"{provider}ExecutionProvider" in onnxruntime.get_available_providers()


def page(name: str, part: Mapping[str, Any]) -> str:
    """A part's tables and notes in Markdown."""
    lines = ["", f"## {name}, {part['seconds']} s{' (failed)' if part.get('failed') else ''}"]
    for table in part["tables"]:
        cells = [list(table["columns"].values()), ["---"] * len(table["columns"])]
        cells += [[shown(row.get(key)) for key in table["columns"]] for row in table["rows"]]
        lines += ["", f"**{table['title']}**", ""]
        lines += ["| " + " | ".join(row) + " |" for row in cells]
        lines += ["", *(f"- {note}" for note in table["notes"])]
    return "\n".join([*lines, "", *(f"- {note}" for note in part["notes"])]) + "\n"


def main(task: Mapping[str, Any]) -> None:
    """Do one part, in the process that was started for it."""
    from benchmarks.gpu.inference import measure_inference
    from benchmarks.gpu.training import measure_training

    options = GpuOptions(**{**task["options"], "parts": tuple(task["options"]["parts"])})
    part, clock = Part(Path(task["result"])), Clock(task["seconds"], end=not options.quick)
    step = {
        "inference": measure_inference,
        "tests": run_tests,
        "training": measure_training,
        "providers": measure_providers,
    }[task["part"]]
    part.attempt(task["part"], lambda: step(part, options, clock))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
