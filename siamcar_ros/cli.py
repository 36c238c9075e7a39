"""The `siamcar` command: a table of subcommands, each imported only when it is used.

A module of `siamcar_ros.commands` has `add_arguments(parser)`, `run(args)`, which returns the exit
status, and perhaps `EXAMPLES`, the end of its help. Errors meant for the user are `ValueError` or
`OSError`: they are printed as one line, with exit status 2. `SIAMCAR_TRACEBACK=1` shows the
traceback.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from siamcar_ros import __version__
from siamcar_ros.files import reason

# Name on the command line -> one line of help; the module is the name with "-" as "_".
COMMANDS: dict[str, str] = {
    "track": "follow a target through a video file, a camera or a folder of images",
    "train": "train a network from a recipe",
    "evaluate": "run a tracker over a benchmark",
    "report": "compare results: tables, plots, one HTML page",
    "sweep": "search the tracker's settings (penalty, window, learning rate) on a data set",
    "replay": "track through a recorded bag, frame by frame, and score it",
    "record-sequence": "turn a folder of images and boxes, or a video, into a bag",
    "export": "write the network as ONNX, checked against PyTorch",
    "convert": "turn published weights into this project's format, or average snapshots",
    "bench": "time a network on every backend and precision available on this machine",
}


# Packages that come with an extra, by the extra's name in pyproject.toml.
_EXTRAS = {
    "onnx": "torch",
    "onnxruntime": "onnxruntime",
    "onnxscript": "torch",
    "openvino": "openvino",
    "optuna": "sweep",
    "ray": "ray",
    "safetensors": "torch",
    "tensorboard": "torch",
    "torch": "torch",
    "trax": "vot",
}


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, as all errors are, without the usage.

    What begins with a negative number is a value, not an option: `--box -5,2,30,40`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see `{self.prog} --help`")


def load_command(name: str) -> ModuleType:
    """Import the module of the subcommand `name`, a key of `COMMANDS`."""
    return importlib.import_module(f"siamcar_ros.commands.{name.replace('-', '_')}")


def overview() -> str:
    """Return the help text of `siamcar` alone: every subcommand with its line."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}\n" for name, text in COMMANDS.items()]
    return (
        "usage: siamcar COMMAND [options]    (siamcar COMMAND --help lists its options)\n\n"
        f"SiamCAR visual object tracking.\n\n{''.join(lines)}\n  --version  print the version"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `siamcar` with `argv` (the process's own arguments when None); return the exit status."""
    try:
        try:
            return _main(list(sys.argv[1:] if argv is None else argv))
        finally:
            if sys.stdout is not None:  # it is closed otherwise
                sys.stdout.flush()  # now, as at exit it can fail only with a traceback
    except BrokenPipeError:
        # The reader of our output went away (`siamcar ... | head`): not an error to report, nor one
        # for the interpreter to meet again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"siamcar {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        return _refuse(f"no command {name!r}; there are: {', '.join(COMMANDS)}")
    try:
        command = load_command(name)
        parser = _Parser(
            prog=f"siamcar {name}",
            description=COMMANDS[name],
            epilog=getattr(command, "EXAMPLES", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(parser)
        return int(command.run(parser.parse_intermixed_args(rest)))
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) or os.environ.get("SIAMCAR_TRACEBACK"):
            raise
        return _refuse(reason(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("siamcar_ros"):
            raise
        package = error.name.partition(".")[0]
        extra = _EXTRAS.get(package)
        how = f"pip install {package}"
        if extra:
            how = (
                f"pip install 'siamcar_ros[{extra}]' (in a checkout: pip install '.[{extra}]'; "
                f'for the Python of a ROS installation: pip install {package} "numpy<2")'
            )
        return _refuse(f"'{name}' needs the Python package {package!r}, not installed: {how}")
    except KeyboardInterrupt:
        print("siamcar: interrupted", file=sys.stderr)
        return 130


def _refuse(message: str) -> int:
    print(f"siamcar: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
