"""Refusing what is not known, with the nearest name that is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def refuse_unknown(names: Iterable[str], allowed: Iterable[str], what: str) -> None:
    """Let known names pass.

    Args:
        names: what was given.
        allowed: what there is.
        what: how the message calls one of them, e.g. "option".

    Raises:
        ValueError: a name is not allowed; the message gives the nearest one and all others.
    """
    known = list(allowed)
    for name in names:
        if name in known:
            continue
        nearest = difflib.get_close_matches(name, known, 1, 0.5)
        guess = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"unknown {what} {name!r}{guess} There are: {', '.join(known)}")
