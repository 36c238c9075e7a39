"""Search of the tracker's knobs, penalty, window influence and learning rate, with Optuna."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import yaml
from tqdm import tqdm

from siamcar_ros.data.sequences import Sequence
from siamcar_ros.evaluation.one_pass import run_sequence
from siamcar_ros.evaluation.protocols import MEASURES, Protocol, score_sequence, summarize
from siamcar_ros.evaluation.runs import share_processors, worker_devices
from siamcar_ros.evaluation.trackers import TrackerSpec

#: The knobs and where they are searched.
RANGES: dict[str, tuple[float, float]] = {
    "penalty_k": (0.0, 0.4),
    "window_influence": (0.0, 0.7),
    "lr": (0.1, 0.9),
}


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        settings: the best knobs.
        value: the measure with them.
        before: the measure with the knobs that the search started from, None where they lie outside
            the ranges.
        measure: which one.
        trials: finished trials of the study, earlier searches' included.
    """

    settings: dict[str, float]
    value: float
    before: float | None
    measure: str
    trials: int


def sweep(
    spec: TrackerSpec,
    sequences: list[Sequence],
    protocol: Protocol,
    study_path: Path,
    *,
    study_name: str,
    trials: int = 100,
    workers: int = 1,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Found:
    """Search for the knobs with the best headline measure.

    A trial tracks all sequences anew: what the network sees depends on where the tracker went. The
    first one has the tracker's own knobs. The study is kept in an SQLite file, and a call with the
    same file and name goes on with it.

    Args:
        spec: the tracker; its settings stay but for the knobs.
        sequences: the data.
        protocol: its rules; the headline's first measure is raised.
        study_path: the SQLite file.
        study_name: in the file.
        trials: how many more to run.
        workers: processes, each with trials of its own.
        ranges: knob -> lowest and highest value; `RANGES` when None.
        seed: of the search.
        progress: show a progress bar.

    Raises:
        ValueError: a knob's range is not understood, the tracker cannot be built, it fails on a
            sequence, or a worker process died.
    """
    ranges = dict(ranges or RANGES)
    for knob, (low, high) in ranges.items():
        if knob not in RANGES or not low < high:
            raise ValueError(f"no range {knob}={low}:{high}; knobs: {', '.join(RANGES)}")
    measure = protocol.headline[0]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study_path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{study_path.resolve()}",
        study_name=study_name,
        direction="maximize",
        load_if_exists=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Trials run side by side: those under way count as bad, so that the next differ from them.
        # A sampler begins anew with each call: with the same seed it would ask the same again.
        study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(study.trials), multivariate=True, constant_liar=workers > 1
        )
    own = _own_knobs(spec)
    if _inside(own, ranges) and not any(_same(trial.params, own) for trial in _done(study)):
        study.enqueue_trial({k: v for k, v in own.items() if k in ranges})
    with tqdm(total=trials, desc=f"sweep {study_name}", unit="trial", disable=not progress) as bar:
        for value in _trials(study, spec, sequences, protocol, trials, workers, ranges):
            bar.update()
            bar.set_postfix({measure: f"{value:.4f}", "best": f"{study.best_value:.4f}"})
    done = _done(study)
    before = next((t.value for t in done if _same(t.params, own)), None)
    best = max((t for t in done if _inside(t.params, ranges)), key=lambda trial: trial.value or 0.0)
    knobs = {k: round(v, 4) for k, v in best.params.items()}
    return Found(knobs, float(best.value or 0.0), before, measure, len(done))


def as_yaml(found: Found, *, data: str, sequences: int) -> str:
    """The best knobs as the `tracker` part of a network's YAML file."""
    knobs = yaml.safe_dump({"tracker": found.settings}, sort_keys=False)
    before = "not measured" if found.before is None else f"{found.before:.4f}"
    return (
        f"# {MEASURES[found.measure]} {found.value:.4f} on {data}, sequences: {sequences}; "
        f"{before} before. Best of {found.trials} trials of `siamcar sweep`.\n{knobs}"
    )


def _trials(
    study: optuna.Study,
    spec: TrackerSpec,
    sequences: list[Sequence],
    protocol: Protocol,
    trials: int,
    workers: int,
    ranges: Mapping[str, tuple[float, float]],
) -> Any:
    """Run trials, `workers` at a time, and give each one's value as it ends."""
    pool: Executor
    if workers == 1:
        pool = _InThisProcess()
        _start_worker(spec, sequences, protocol, None, 1)
    else:
        context = multiprocessing.get_context("spawn")
        # What cannot be built is refused here, rather than in each worker.
        devices, given = worker_devices(spec, spec.load_network()[0]), context.SimpleQueue()
        for i in range(workers):
            given.put(devices[i % len(devices)])
        arguments = (spec, sequences, protocol, given, workers)
        pool = ProcessPoolExecutor(workers, context, _start_worker, arguments)
    running: dict[Future[float], optuna.Trial] = {}
    try:
        for _ in range(trials):
            if len(running) == workers:
                yield from _finish(study, running)
            trial = study.ask()
            knobs = {knob: trial.suggest_float(knob, *ends) for knob, ends in ranges.items()}
            try:
                running[pool.submit(_evaluate, knobs)] = trial
            except BaseException:  # of one worker, which evaluates at once
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                raise
        while running:
            yield from _finish(study, running)
    finally:
        for trial in running.values():
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        pool.shutdown(wait=True, cancel_futures=True)


def _finish(study: optuna.Study, running: dict[Future[float], optuna.Trial]) -> Any:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        try:
            value = future.result()
        except BrokenProcessPool as error:
            raise ValueError("a worker process died; run again to go on with the study") from error
        study.tell(running.pop(future), value)
        yield value


class _InThisProcess(Executor):
    """Runs what is submitted at once; one worker is not worth a process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


_worker: tuple[Any, Any, list[Sequence], Protocol]


def _start_worker(
    spec: TrackerSpec, sequences: list[Sequence], protocol: Protocol, devices: Any, workers: int
) -> None:
    global _worker
    device = None if devices is None else devices.get()
    network, params = spec.load_network(device, share_processors(workers))
    _worker = network, params, sequences, protocol


def _evaluate(knobs: dict[str, float]) -> float:
    """The headline measure with these knobs, in a worker."""
    from siamcar_ros.tracking import SiamCarTracker

    network, params, sequences, protocol = _worker
    tracker = SiamCarTracker(network, replace(params, **knobs))
    scores = [score_sequence(s, [run_sequence(tracker, s)], protocol) for s in sequences]
    kept = [score for score in scores if score is not None]
    return summarize("", kept, protocol).measures[protocol.headline[0]]


def _own_knobs(spec: TrackerSpec) -> dict[str, float]:
    from siamcar_ros.tracking import read_config

    params = read_config(spec.network, spec.weights, spec.settings).params
    return {knob: float(getattr(params, knob)) for knob in RANGES}


def _done(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))


def _inside(params: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> bool:
    return all(low <= params[knob] <= high for knob, (low, high) in ranges.items())


def _same(params: Mapping[str, float], own: Mapping[str, float]) -> bool:
    return all(abs(value - own[knob]) < 1e-9 for knob, value in params.items())
