"""Reference outputs and sequences that are not part of the package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[3] / "shared"
SHARED = Path(os.environ.get("SIAMCAR_SHARED", _BESIDE))
"""Holds `golden` and `sequences`: a folder beside the checkout, or $SIAMCAR_SHARED."""


def reference(name: str) -> Path:
    """A file or folder in it; the test is skipped where there is none."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} does not exist; $SIAMCAR_SHARED may name another folder")
    return path
