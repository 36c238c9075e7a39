"""Build the API reference from the docstrings; called by `make docs`.

    python tools/docs.py [FOLDER]        # build/docs/index.html

Modules whose dependencies are missing here (ROS's launch, Triton) are left out, and named.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import warnings
from pathlib import Path

import pdoc

import siamcar_ros

# Generated interfaces, and scripts that run when they are imported.
_LEFT_OUT = re.compile(r"siamcar_ros\.(msg|srv|action|_data)\b|__main__")
_ROLE = re.compile(r":\w+:`~?\.*([^`]+)`")


def left_out() -> dict[str, str]:
    """The modules that get no page, and why: nothing, or the reason why they cannot be imported."""
    missing = {}
    for each in pkgutil.walk_packages(siamcar_ros.__path__, "siamcar_ros.", onerror=lambda _: None):
        if _LEFT_OUT.search(each.name):
            missing[each.name] = ""
            continue
        try:
            importlib.import_module(each.name)
        except ImportError as error:
            missing[each.name] = str(error)
    return missing


def build(folder: Path) -> None:
    """Write one HTML page a module, an index and a search to `folder`."""
    convert = pdoc.render_helpers.docstrings.convert
    # Sphinx's roles, :class:`Box`, become the plain names that pdoc links.
    pdoc.render_helpers.docstrings.convert = lambda text, *rest: convert(
        _ROLE.sub(r"`\1`", text), *rest
    )
    # What a class has of a private base is documented with the class.
    own = pdoc.doc.Class.own_members.func
    pdoc.doc.Class.own_members = property(
        lambda each: (
            own(each)
            + [m for m in each.members.values() if re.match("_[A-Z].*\\.[a-z]", m.taken_from[1])]
        )
    )
    # Warnings about names that only type checkers import, and about modules that are listed below.
    warnings.filterwarnings("ignore", module="pdoc")
    footer = f"siamcar_ros {siamcar_ros.__version__}"
    pdoc.render.configure(docformat="google", footer_text=footer, show_source=False)
    missing = left_out()
    pdoc.pdoc("siamcar_ros", *(f"!{name}" for name in missing), output_directory=folder)
    print(f"wrote {folder / 'index.html'}")
    for name, reason in missing.items():
        if reason:
            print(f"left out: {name}: {reason}")


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs"))
