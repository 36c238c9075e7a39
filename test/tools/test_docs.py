"""`make docs`: every room has its page, and no link in them is dead."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

pytest.importorskip("pdoc")
pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
ROOMS = ("geometry", "model", "runtime", "tracking", "data", "evaluation", "training", "bags")


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag == "a" and found.get("href"):
            self.links.add(found["href"] or "")
        if found.get("id"):
            self.anchors.add(found["id"] or "")


@pytest.mark.slow
def test_the_reference_has_every_room_and_no_dead_link(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "docs.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    pages = {path.resolve(): Page(path) for path in tmp_path.rglob("*.html")}
    for room in ROOMS:
        assert (tmp_path / "siamcar_ros" / f"{room}.html").resolve() in pages
    assert "SiamCarTracker" in pages[(tmp_path / "siamcar_ros/tracking.html").resolve()].anchors
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(unquote(link))
            if "://" in target:
                continue
            aimed = (path.parent / target).resolve() if target else path
            assert aimed in pages, f"{path.name} links to {link}"
            if anchor:
                assert anchor in pages[aimed].anchors, f"{path.name} links to {link}"
