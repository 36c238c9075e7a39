"""``python -m siamcar_ros.training CONFIG [key=value …]``, what torchrun starts."""

from __future__ import annotations

import sys

from siamcar_ros.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
