"""Result files in the layouts of the GOT-10k toolkit, which other tools also use.

GOT-10k:  ROOT/GOT-10k/TRACKER/SEQUENCE/SEQUENCE_001.txt, beside it SEQUENCE_time.txt
others:   ROOT/OTB2015/TRACKER/SEQUENCE.txt, with times/SEQUENCE_time.txt

One box x,y,w,h per line, in the benchmark's own coordinates, and one time in seconds per line;
`nan` means that the image did not decode. The tracker's score and state per frame, where it has
them, lie beside the times. `run.json` in the tracker's folder records how the results were made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from siamcar_ros.data import Sequence, SequenceError
from siamcar_ros.data.annotations import read_numbers, read_rows
from siamcar_ros.evaluation.one_pass import Run
from siamcar_ros.files import replacing

RUN_FILE = "run.json"
#: What is stored per frame beside the boxes.
BESIDE = ("time", "score", "state")
_ROUNDING = 0.5e-3  # of the boxes that are written


@dataclass(frozen=True)
class TrackerResults:
    """The results of one tracker on one benchmark."""

    folder: Path  # the tracker's, e.g. results/OTB2015/SiamCAR
    layout: str  # "got10k", a folder per sequence, or "otb", a file per sequence

    @property
    def tracker(self) -> str:
        """The tracker's name."""
        return self.folder.name

    def boxes_path(self, name: str) -> Path:
        """The file of a sequence's boxes."""
        if self.layout == "got10k":
            return self.folder / name / f"{name}_001.txt"
        return self.folder / f"{name}.txt"

    def all_boxes_paths(self, name: str) -> list[Path]:
        """The files of a sequence's boxes that exist: GOT-10k may have several repetitions."""
        if self.layout == "got10k":
            return sorted((self.folder / name).glob(f"{name}_[0-9]*.txt"))
        return [path for path in (self.boxes_path(name),) if path.is_file()]

    def beside(self, name: str, kind: str) -> Path:
        """The file of a sequence's values per frame: "time", "score" or "state"."""
        if self.layout == "got10k":
            return self.folder / name / f"{name}_{kind}.txt"
        return self.folder / f"{kind}s" / f"{name}_{kind}.txt"

    def is_done(self, sequence: Sequence) -> bool:
        """Whether there is a box for every frame, and the first one is the sequence's own.

        If it is not, the results are of other data of the same name.
        """
        try:
            boxes = read_rows(self.boxes_path(sequence.name))
        except (SequenceError, OSError):
            return False
        return len(boxes) == len(sequence) and np.allclose(
            boxes[0], sequence.boxes[0], rtol=0, atol=2 * _ROUNDING, equal_nan=True
        )

    def names(self) -> list[str]:
        """The sequences that have a file of boxes, complete or not."""
        if self.layout == "got10k":
            places = {path.parent for path in self.folder.glob("*/*_[0-9]*.txt")}
            return sorted(p.name for p in places if any(p.glob(f"{p.name}_[0-9]*.txt")))
        return sorted(path.stem for path in self.folder.glob("[!.]*.txt"))

    def write(self, name: str, run: Run) -> None:
        """Write a run; the boxes last and atomically, so that a file of boxes is complete."""
        _save(self.beside(name, "time"), run.times, "%.8f")
        _save(self.beside(name, "score"), run.scores, "%.5f")
        self.beside(name, "state").unlink(missing_ok=True)
        if run.states:
            _save(self.beside(name, "state"), np.array(run.states), "%s")
        _save(self.boxes_path(name), run.boxes, "%.3f")

    def read(self, sequence: Sequence) -> list[Run]:
        """Read the runs of a sequence: one, or GOT-10k's repetitions.

        Files of other tools may have other names, and rows of frames that the benchmark omits.
        """
        n = len(sequence)
        for name in (sequence.name, *sequence.aliases):
            paths = self.all_boxes_paths(name)
            if paths:
                trials = range(len(paths))
                times, scores = (
                    _columns(self.beside(name, kind), n, trials) for kind in ("time", "score")
                )
                states = _words(self.beside(name, "state"), n)
                boxes = (_read_boxes(path, sequence) for path in paths)
                return [Run(*each, states) for each in zip(boxes, scores, times, strict=True)]
        raise FileNotFoundError(f"no result {self.boxes_path(sequence.name)}")

    def write_submission(self, sequences: list[Sequence]) -> Path:
        """Zip the results as the benchmark's server wants them, beside the tracker's folder: with
        the times for GOT-10k, the boxes alone for TrackingNet.
        """
        missing = [s.name for s in sequences if not self.is_done(s)]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(sequences)} sequences have no result, e.g. {missing[0]}; "
                "finish the evaluation before submitting"
            )
        archive = self.folder.with_name(f"{self.tracker}.zip")
        with replacing(archive) as partial, ZipFile(partial, "w", ZIP_DEFLATED) as file:
            for sequence in sequences:
                paths = [self.boxes_path(sequence.name)]
                if self.layout == "got10k":
                    paths.append(self.beside(sequence.name, "time"))
                for path in paths:
                    file.write(path, path.relative_to(self.folder))
        return archive

    def write_run_file(self, facts: dict[str, Any]) -> None:
        """Record in `run.json` how the results were made."""
        text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / RUN_FILE) as partial:
            partial.write_text(text, encoding="utf-8")

    def read_run_file(self) -> dict[str, Any]:
        """The content of `run.json`; empty if there is none."""
        path = self.folder / RUN_FILE
        if not path.is_file():
            return {}
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        if not isinstance(facts, dict) or not isinstance(facts.get("tracker", {}), dict):
            raise ValueError(f"{path} was not written by siamcar evaluate: remove it")
        return facts


def _read_boxes(path: Path, sequence: Sequence) -> np.ndarray:
    n, boxes = len(sequence), read_rows(path)
    if sequence.lead_in and len(boxes) >= n + sequence.lead_in:
        boxes = boxes[sequence.lead_in :]
    if len(boxes) < n:
        raise SequenceError(f"{path}: {len(boxes)} boxes for {n} frames")
    return boxes[:n]


def _words(path: Path, n: int) -> tuple[str, ...]:
    """A word per frame; none if there is no such file, or it does not fit."""
    words = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return tuple(words) if len(words) == n else ()


def _columns(path: Path, n: int, trials: range) -> list[np.ndarray]:
    """The columns of a file with a value per frame and trial; NaN if it does not fit."""
    values = read_numbers(path) if path.is_file() else np.zeros(0)
    if len(values) == 0 or len(values) % n:
        values = np.full(n, np.nan)
    columns = values.reshape(n, -1).T
    return [columns[min(trial, len(columns) - 1)] for trial in trials]


def _save(path: Path, values: np.ndarray, form: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        np.savetxt(partial, values, fmt=form, delimiter=",")
