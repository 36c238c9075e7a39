"""Several trackers on one benchmark: read, scored and compared."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from siamcar_ros.data import Collection, Sequence, SequenceError
from siamcar_ros.evaluation.benchmarks import Benchmark, find_benchmark
from siamcar_ros.evaluation.one_pass import Run
from siamcar_ros.evaluation.presence import MEASURES as PRESENCE
from siamcar_ros.evaluation.presence import OUT_OF
from siamcar_ros.evaluation.protocols import (
    BOX_MEASURES,
    MEASURES,
    Score,
    TrackerScore,
    score_sequence,
    summarize,
)
from siamcar_ros.evaluation.results import BESIDE, TrackerResults
from siamcar_ros.files import reason


@dataclass(frozen=True)
class Comparison:
    """Trackers on one benchmark, over the sequences for which all of them have results."""

    benchmark: Benchmark
    title: str  # of the data
    sequences: dict[str, Sequence]  # those compared, by name
    trackers: list[TrackerScore]  # ranked by the headline measure
    runs: dict[str, dict[str, Run]]  # tracker -> sequence -> its (first) run
    facts: dict[str, dict[str, Any]]  # tracker -> its `run.json`; empty where there is none
    attributes: dict[str, str]  # long names, by short ones, of those that some sequence has
    problems: list[str]  # a line for everything that was left out or odd

    @cached_property
    def by_attribute(self) -> dict[str, dict[str, TrackerScore]]:
        """Attribute -> tracker -> its score over the attribute's sequences."""
        table: dict[str, dict[str, TrackerScore]] = {}
        for attribute in self.attributes:
            names = [n for n, s in self.sequences.items() if attribute in s.attributes]
            for tracker in self.trackers:
                scores = {name: tracker.sequences[name] for name in names}
                score = summarize(tracker.tracker, scores, self.benchmark.protocol)
                table.setdefault(attribute, {})[tracker.tracker] = score
        return table

    def count(self) -> str:
        """The number of sequences compared, and of the benchmark's where it has more."""
        number, whole = len(self.sequences), self.benchmark.size
        if whole is not None and number < whole:
            return f"{number} of {whole} sequences"
        return f"{number:,} {'sequence' if number == 1 else 'sequences'}"

    def columns(self) -> list[str]:
        """The measures of boxes, those that the benchmark reports first."""
        headline = self.benchmark.protocol.headline
        return [*headline, *(m for m in BOX_MEASURES if m not in headline)]


def compare(
    folders: list[Path], *, benchmark: str | None = None, root: Path | None = None
) -> Comparison:
    """Score the result folders of trackers, results/BENCHMARK/TRACKER, on one benchmark.

    A folder results/BENCHMARK stands for all trackers in it. The benchmark and the root of its data
    are taken from `run.json` when None. A tracker without any result is named in `problems`.
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
    """Score result folders, one tracker each, on data that has been read, called `title`."""
    if collection.sequences[0].withheld:
        raise ValueError(f"the ground truth of {title} is withheld; submit to {rules.server}")
    problems = list(collection.problems)
    scores: dict[str, dict[str, Score]] = {}
    runs: dict[str, dict[str, Run]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for name, folder in zip(_titles(folders), folders, strict=True):
        results = TrackerResults(folder, rules.layout)
        facts[name] = results.read_run_file()
        scores[name], runs[name] = {}, {}
        before = len(problems)
        for sequence in collection.sequences:
            try:
                found = results.read(sequence)
            except (SequenceError, OSError) as error:
                problems.append(f"{name}, {sequence.name} left out: {reason(error)}")
                continue
            score = score_sequence(sequence, found, rules.protocol)
            if score is None:
                problems.append(f"{name}, {sequence.name} left out: no frame to score")
                continue
            scores[name][sequence.name], runs[name][sequence.name] = score, found[0]
        if not scores[name] and len(folders) > 1:
            del scores[name], runs[name]
            problems[before:] = [f"{name} left out: no result in {folder} that can be scored"]
    common = set.intersection(*(set(of) for of in scores.values())) if scores else set()
    if not common:
        raise ValueError("; ".join(["no sequence has results of every tracker", *problems[:3]]))
    sequences = {s.name: s for s in collection.sequences if s.name in common}
    trackers = [
        summarize(name, {s: of[s] for s in sequences}, rules.protocol)
        for name, of in scores.items()
    ]
    trackers.sort(key=lambda t: -t.measures[rules.protocol.headline[0]])
    present = set().union(*(s.attributes for s in sequences.values()))
    long_names = collection.attributes or {name: name for name in sorted(present)}
    attributes = {k: v for k, v in long_names.items() if k in present}
    return Comparison(rules, title, sequences, trackers, runs, facts, attributes, problems)


def format_table(comparison: Comparison) -> str:
    """Format the measures of each tracker, and AO by sequence where there are few, as text."""
    parts = [f"{comparison.title}: {comparison.count()}"]
    for title, columns in (("tracker", comparison.columns()), ("presence", list(PRESENCE))):
        rows = [[title, *(MEASURES[m] for m in columns)]]
        for tracker in comparison.trackers:
            cells = [format_measure(m, tracker.measures) for m in columns]
            rows.append([tracker.tracker, *cells])
        parts.append(aligned(rows))
    where = {t.tracker: measured_on(comparison.facts[t.tracker]) for t in comparison.trackers}
    lines = [f"{name}: {text}" for name, text in where.items() if text]
    parts += ["\n".join(["Frames/s measured with", *lines])] if lines else []
    if len(comparison.sequences) <= 20:
        rows = [["AO", *(t.tracker for t in comparison.trackers)]]
        for name in comparison.sequences:
            values = (t.sequences[name].measures for t in comparison.trackers)
            rows.append([name, *(format_measure("ao", value) for value in values)])
        parts.append(aligned(rows))
    return "\n\n".join(parts)


def measured_on(facts: Mapping[str, Any]) -> str:
    """What a tracker ran on, by its `run.json`: "openvino int8 on Intel ..."; empty if unknown."""
    tracker, workers = facts.get("tracker", {}), facts.get("workers", 1)
    ours = tracker.get("kind", "siamcar") == "siamcar"
    how = " ".join(str(tracker[key]) for key in ("backend", "precision") if ours and key in tracker)
    machine = facts.get("processor") or facts.get("machine", "")
    text = " on ".join(filter(None, (how, machine)))
    return f"{text}, {workers} processes at a time" if workers > 1 else text


def format_measure(measure: str, values: Mapping[str, float]) -> str:
    """A measure's value as text: "0.534", "12.1", "3 of 9"; a dash for NaN."""
    value = values[measure]
    if math.isnan(value):
        return "–"
    if measure in OUT_OF:
        return f"{value:.0f} of {values[OUT_OF[measure]]:.0f}"
    return f"{value:.1f}" if measure in ("fps", "frames_to_find") else f"{value:.3f}"


def aligned(rows: list[list[str]]) -> str:
    """Format a table: the first row is the header, the first column is aligned left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _tracker_folders(folder: Path) -> list[Path]:
    """The folder itself if it holds a tracker's results, else the trackers' folders in it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no result folder {folder}")
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    trackers = [p for p in inner if p.name.removesuffix("s") not in BESIDE and any(p.iterdir())]
    if (folder / "run.json").is_file() or any(folder.glob("*.txt")) or not trackers:
        return [folder]
    # GOT-10k's layout has a folder per sequence in the tracker's, others' have files in it.
    return [folder] if any((p / f"{p.name}_001.txt").is_file() for p in trackers) else trackers


def _titles(folders: list[Path]) -> list[str]:
    """Name each folder by its own name or, if several share it, by where their paths differ."""
    paths = [folder.resolve() for folder in folders]
    names, common = [path.name for path in paths], os.path.commonpath(paths)
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"the results {path} are given twice")
    return [
        str(path.relative_to(common)) if names.count(path.name) > 1 else path.name for path in paths
    ]


def _agreed(key: str, folders: list[Path], facts: list[dict[str, object]]) -> str:
    values = {str(f[key]) for f in facts if key in f}
    if len(values) == 1:
        return values.pop()
    given = ", ".join(map(str, folders))
    option = "--dataset" if key == "benchmark" else "--root"
    if not values:
        raise ValueError(f"no run.json in {given} names the {key}: give {option}")
    raise ValueError(f"{given} differ in their {key} ({', '.join(sorted(values))}): give {option}")
