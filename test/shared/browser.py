"""Chromium, for tests that open a page or play a film."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
# Chromium would look for its maker's hosts.
_QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The installed Chromium, without a window; skips the test where it is missing."""
    reason = "playwright is not installed: the extra `dev`"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        pytest.skip("no Chromium is installed (apt install chromium)")
    with playwright.sync_playwright() as running:
        arguments = ["--no-sandbox", "--disable-gpu", *_QUIET]
        browser = running.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
        finally:
            browser.close()
