"""Several trackers on one benchmark: read, scored and compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from siamcar_ros.data import Collection, Sequence, SequenceError
from siamcar_ros.evaluation.benchmarks import Benchmark, find_benchmark
from siamcar_ros.evaluation.one_pass import Run
from siamcar_ros.evaluation.protocols import (
    MEASURES,
    Score,
    TrackerScore,
    score_sequence,
    summarize,
)
from siamcar_ros.evaluation.results import TrackerResults


@dataclass(frozen=True)
class Comparison:
    """Trackers on one benchmark, over the sequences for which all of them have results.

    Attributes:
        benchmark: the data set and its rules.
        title: of the data.
        sequences: those compared, by name.
        trackers: their scores, ranked by the headline measure.
        runs: tracker -> sequence -> its (first) run.
        attributes: short name -> long name of the attributes that some sequence has.
        problems: a line for everything that was left out or odd.
    """

    benchmark: Benchmark
    title: str
    sequences: dict[str, Sequence]
    trackers: list[TrackerScore]
    runs: dict[str, dict[str, Run]]
    attributes: dict[str, str]
    problems: list[str]

    def by_attribute(self, measure: str) -> dict[str, dict[str, float]]:
        """Attribute -> tracker -> mean of `measure` over the attribute's sequences."""
        table: dict[str, dict[str, float]] = {}
        for attribute in self.attributes:
            names = {n for n, s in self.sequences.items() if attribute in s.attributes}
            table[attribute] = {
                t.tracker: summarize(
                    t.tracker, list(t.sequences), self.benchmark.protocol, names=names
                ).measures[measure]
                for t in self.trackers
            }
        return table


def compare(
    folders: list[Path], *, benchmark: str | None = None, root: Path | None = None
) -> Comparison:
    """Score the result folders of trackers on one benchmark.

    A tracker without any result is left out, and named in `problems`.

    Args:
        folders: results/BENCHMARK/TRACKER; a results/BENCHMARK stands for all trackers in it.
        benchmark: the benchmark's name; taken from `run.json` when None.
        root: where its data is; likewise.

    Raises:
        ValueError: the benchmark or its root is unknown or differs between folders, there is
            nothing to compare, or the ground truth is withheld.
        OSError: the data or the results are missing.
    """
    folders = [tracker for folder in folders for tracker in _tracker_folders(folder)]
    facts = [TrackerResults(folder, "otb").read_run_file() for folder in folders]
    benchmark = benchmark or _agreed("benchmark", folders, facts)
    root = root or Path(_agreed("root", folders, facts))
    rules = find_benchmark(benchmark)
    return compare_on(rules, rules.read(root), rules.title or root.resolve().name, folders)


def compare_on(
    rules: Benchmark, collection: Collection, title: str, folders: list[Path]
) -> Comparison:
    """Score the result folders of trackers, one each, on data that has been read.

    Args:
        rules: the benchmark.
        collection: its data.
        title: of the data.
        folders: results/BENCHMARK/TRACKER.

    Raises:
        ValueError: as `compare`.
    """
    if collection.sequences[0].withheld:
        raise ValueError(f"the ground truth of {title} is withheld; submit to {rules.server}")
    problems = list(collection.problems)
    scores: dict[str, dict[str, Score]] = {}
    runs: dict[str, dict[str, Run]] = {}
    for folder in folders:
        results = TrackerResults(folder, rules.layout)
        name = results.tracker
        if name in scores:
            raise ValueError(f"two trackers are called {name}: rename a folder")
        scores[name], runs[name] = {}, {}
        told = len(problems)
        for sequence in collection.sequences:
            try:
                found = results.read(sequence)
            except (SequenceError, OSError) as error:
                problems.append(f"{name}, {sequence.name} left out: {error}")
                continue
            score = score_sequence(sequence, found, rules.protocol)
            if score is None:
                problems.append(f"{name}, {sequence.name} left out: no frame to score")
                continue
            scores[name][sequence.name], runs[name][sequence.name] = score, found[0]
        if not scores[name] and len(folders) > 1:
            del scores[name], runs[name]
            problems[told:] = [f"{name} left out: no result in {folder} that can be scored"]
    common = set.intersection(*(set(of) for of in scores.values())) if scores else set()
    if not common:
        raise ValueError("; ".join(["no sequence has results of every tracker", *problems[:3]]))
    sequences = {s.name: s for s in collection.sequences if s.name in common}
    trackers = [
        summarize(name, [of[s] for s in sequences], rules.protocol) for name, of in scores.items()
    ]
    trackers.sort(key=lambda t: -t.measures[rules.protocol.headline[0]])
    present = set().union(*(s.attributes for s in sequences.values()))
    long_names = collection.attributes or {name: name for name in sorted(present)}
    return Comparison(
        benchmark=rules,
        title=title,
        sequences=sequences,
        trackers=trackers,
        runs=runs,
        attributes={k: v for k, v in long_names.items() if k in present},
        problems=problems,
    )


def format_table(comparison: Comparison, *, most_sequences: int = 20) -> str:
    """Format the measures of each tracker, and AO by sequence, as tables of text.

    Args:
        comparison: the trackers.
        most_sequences: the second table is omitted where there are more.
    """
    columns = measure_order(comparison)
    rows = [["tracker", *(MEASURES[m] for m in columns)]]
    for tracker in comparison.trackers:
        rows.append([tracker.tracker, *(format_measure(m, tracker.measures[m]) for m in columns)])
    text = f"{comparison.title}: {count_sequences(comparison)}\n{_aligned(rows)}"
    if len(comparison.sequences) > most_sequences:
        return text
    rows = [["AO", *(t.tracker for t in comparison.trackers)]]
    for i, name in enumerate(comparison.sequences):
        values = (t.sequences[i].measures["ao"] for t in comparison.trackers)
        rows.append([name, *(format_measure("ao", value) for value in values)])
    return f"{text}\n\n{_aligned(rows)}"


def count_sequences(comparison: Comparison) -> str:
    """The number of sequences compared, and of the benchmark's where it has more."""
    number, whole = len(comparison.sequences), comparison.benchmark.size
    if whole is not None and number < whole:
        return f"{number} of {whole} sequences"
    return f"{number:,} {'sequence' if number == 1 else 'sequences'}"


def measure_order(comparison: Comparison) -> list[str]:
    """The measures, those that the benchmark reports first."""
    headline = comparison.benchmark.protocol.headline
    return [*headline, *(m for m in MEASURES if m not in headline)]


def format_measure(measure: str, value: float) -> str:
    """A measure's value as text."""
    if math.isnan(value):
        return "–"
    return f"{value:.1f}" if measure == "fps" else f"{value:.3f}"


def _aligned(rows: list[list[str]]) -> str:
    """Format a table: the first row is the header, the first column is aligned left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _tracker_folders(folder: Path) -> list[Path]:
    """The folder itself if it holds a tracker's results, else the trackers' folders in it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no result folder {folder}")
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    trackers = [p for p in inner if p.name not in ("times", "scores") and any(p.iterdir())]
    if (folder / "run.json").is_file() or any(folder.glob("*.txt")) or not trackers:
        return [folder]
    # GOT-10k's layout has a folder per sequence in the tracker's, others' have files in it.
    if any((p / f"{p.name}_001.txt").is_file() for p in trackers):
        return [folder]
    return trackers


def _agreed(key: str, folders: list[Path], facts: list[dict[str, object]]) -> str:
    values = {str(f[key]) for f in facts if key in f}
    if len(values) == 1:
        return values.pop()
    given = ", ".join(map(str, folders))
    option = "--dataset" if key == "benchmark" else "--root"
    if not values:
        raise ValueError(f"no run.json in {given} names the {key}: give {option}")
    raise ValueError(f"{given} differ in their {key} ({', '.join(sorted(values))}): give {option}")
