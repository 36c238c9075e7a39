"""Sequences that all tests of the room may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from moving_square import write_sequences


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sequences(tmp_path / "data")
