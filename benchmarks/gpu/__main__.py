"""The command line of `python -m benchmarks.gpu`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    from benchmarks.gpu.run import GpuOptions, failed, measure_gpu
    from siamcar_ros.runtime import select_backend
except ModuleNotFoundError as error:
    fix = f"{shlex.quote(sys.executable)} -m pip install -r benchmarks/gpu/requirements.txt"
    sys.exit(f"benchmarks: error: {error}: {fix}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the result is the exit status.

    Raises:
        ValueError: there is no such device, or a number is out of range.
    """
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description="tests, tracking and training on a GPU"
    )
    parser.add_argument(
        "--device", default="cuda", help="cuda, cuda:N, or cpu for a rehearsal (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, help="in all, about (300)")
    parser.add_argument("--quick", action="store_true", help="only whether it runs: the least work")
    parser.add_argument(
        "--output", type=Path, default=Path("gpu-bench"), metavar="DIR", help="(%(default)s)"
    )
    args = parser.parse_args(arguments)
    if args.seconds is not None and not args.seconds > 0:
        raise ValueError(f"--seconds must be above 0, not {args.seconds:g}")
    device = select_backend(args.device).device
    seconds = args.seconds or (20.0 if args.quick else 300.0)
    wrong = failed(measure_gpu(GpuOptions(device, seconds, args.quick), args.output))
    print(f"figures in {args.output}/gpu.json and gpu.md")
    if wrong:
        print(f"benchmarks: failed: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(f"benchmarks: error: {error}")
