"""The results of a measurement, printed as a table or written as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from siamcar_ros.evaluation.comparison import aligned


@dataclass
class Table:
    """The rows of one measurement."""

    title: str  # what was measured
    columns: dict[str, str]  # headings, with units, by the key of their values; in order
    rows: list[dict[str, Any]] = field(default_factory=list)  # a missing value is left blank
    notes: list[str] = field(default_factory=list)  # printed below the table

    def text(self) -> str:
        """The table with its title and notes."""
        cells = [list(self.columns.values())]
        cells += [[shown(row.get(key)) for key in self.columns] for row in self.rows]
        return "\n".join([self.title, aligned(cells), *(f"  {note}" for note in self.notes)])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def shown(value: Any) -> str:
    """A cell: nothing for None, three digits of a number."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
