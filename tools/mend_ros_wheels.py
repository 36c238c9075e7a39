"""Adapts the ROS wheels of this virtual environment, so that interfaces can be built with them.

Run by the environment's own Python, after each installation; running it again changes nothing.

1. The wheels' CMake files name the headers of the machine that built them: they are pointed at this
   Python's and this NumPy's.
2. The interface generators require ament_cmake_ros, but only its option to build shared libraries:
   Fast DDS type support that is linked statically fails at run time.
3. colcon would take the wheels' package.xml files for packages to build; COLCON_IGNORE prevents it.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import numpy as np

PYTHON_HEADERS = re.compile(r"/opt/python/[^;\"\s]*?/include/python3\.\d+t?")
NUMPY_HEADERS = re.compile(r"/opt/python/[^;\"\s]*?/numpy/_?core/include")


def point_at_headers(prefix: Path) -> int:
    """Rewrite header folders in the CMake files under `prefix`/share; return how many changed."""
    changed = 0
    for file in (prefix / "share").rglob("*.cmake"):
        text = file.read_text(encoding="utf-8")
        mended = NUMPY_HEADERS.sub(np.get_include(), text)
        mended = PYTHON_HEADERS.sub(sysconfig.get_path("include"), mended)
        if mended != text:
            file.write_text(mended, encoding="utf-8")
            changed += 1
    return changed


def build_shared_libraries(prefix: Path) -> None:
    """Write the one line of ament_cmake_ros that the generators need."""
    config = prefix / "share" / "ament_cmake_ros" / "cmake" / "ament_cmake_rosConfig.cmake"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('option(BUILD_SHARED_LIBS "" ON)\n', encoding="utf-8")


def main() -> int:
    prefix = Path(sys.prefix)
    if prefix == Path(sys.base_prefix):
        print("mend_ros_wheels.py: run it with a virtual environment's Python", file=sys.stderr)
        return 2
    changed = point_at_headers(prefix)
    build_shared_libraries(prefix)
    (prefix / "COLCON_IGNORE").touch()
    print(f"{changed} CMake files pointed at this Python's headers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
