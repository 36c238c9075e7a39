"""Results of one measurement: a table for the eye, plain data for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Table:
    """Rows of one measurement.

    Attributes:
        title: what was measured.
        columns: key -> heading, in order; a key's unit stands in its heading.
        rows: values by key; a missing one prints as nothing.
        notes: what must be known to read it.
    """

    title: str
    columns: dict[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The table with its title and notes."""
        cells = [list(self.columns.values())]
        cells += [[_shown(row.get(key)) for key in self.columns] for row in self.rows]
        return "\n".join([self.title, *_aligned(cells), *(f"  {note}" for note in self.notes)])

    def markdown(self) -> str:
        """The same in Markdown."""
        cells = [list(self.columns.values()), ["---"] * len(self.columns)]
        cells += [[_shown(row.get(key)) for key in self.columns] for row in self.rows]
        rows = ["| " + " | ".join(row) + " |" for row in cells]
        return "\n".join([f"**{self.title}**", "", *rows, "", *(f"- {n}" for n in self.notes)])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
