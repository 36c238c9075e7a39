"""Running a tracker over many sequences, so that an interrupted run can be continued."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

from tqdm import tqdm

from siamcar_ros.data import Sequence
from siamcar_ros.evaluation.one_pass import Run, Tracker, run_sequence
from siamcar_ros.evaluation.results import TrackerResults
from siamcar_ros.evaluation.workers import Workers


def run_all(
    workers: Workers,
    sequences: list[Sequence],
    results: TrackerResults,
    *,
    again: bool = False,
) -> list[str]:
    """Run the workers' tracker over sequences and write its results.

    A sequence that has its result is run only if asked to (`again`), and its result is replaced
    when the new run has succeeded. Returns a line for each sequence that failed, with the reason.
    """
    todo = [s for s in sequences if again or not results.is_done(s)]
    todo.sort(key=len, reverse=True)
    problems: list[str] = []
    done = len(sequences) - len(todo)
    with tqdm(
        total=sum(map(len, todo)),
        desc=results.tracker + (f" ({done} done before)" if done else ""),
        unit="frame",
        disable=not todo,
        mininterval=0.1 if sys.stderr.isatty() else 10,
        dynamic_ncols=True,
    ) as bar:
        work = partial(attempt, on_frame=lambda _: bar.update()) if workers.here else attempt
        with closing(workers.map(work, todo)) as outcomes:
            for sequence, outcome in outcomes:
                if not workers.here:
                    bar.update(len(sequence))
                bar.set_postfix_str(sequence.name)
                if isinstance(outcome, str):
                    problems.append(f"{sequence.name}: {outcome}")
                else:
                    results.write(sequence.name, outcome)
    return problems


def attempt(
    tracker: Tracker, sequence: Sequence, on_frame: Callable[[int], Any] | None = None
) -> Run | str:
    """Run one sequence; if the tracker raises, return the reason."""
    try:
        return run_sequence(tracker, sequence, on_frame=on_frame)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
