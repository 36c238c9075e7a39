"""YAML, short messages, and the networks that ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from siamcar_ros.resources import network_file, network_names, read_yaml, shortened


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "is not valid YAML"),
        ("a: " + "[" * 5000, "maximum recursion depth"),
        ("a: 2024-99-99", "month must be in"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
    ],
    ids=["open", "deep", "date", "object"],
)
def test_bad_yaml_is_refused_in_a_short_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=why) as refused:
        read_yaml(path)
    told = str(refused.value)
    assert told.startswith(str(path))
    assert len(told) < 500
    assert "\n" not in told


def test_values_in_messages_are_cut_short() -> None:
    assert shortened("compact") == "'compact'"
    assert len(shortened({i: list(range(100)) for i in range(1000)})) <= 80
    assert len(shortened("x" * 10_000)) <= 80
    assert shortened(ValueError("two\nlines")) == "two lines"


def test_networks_are_found_by_name_or_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "compact" in network_names()
    assert network_file("compact").name == "compact.yaml"
    with pytest.raises(ValueError, match="called 'nano': there are alexnet, compact"):
        network_file("nano")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        network_file(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert network_file("~/mine.yaml") == tmp_path / "mine.yaml"
