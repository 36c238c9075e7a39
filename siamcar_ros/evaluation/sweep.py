"""Search of the tracker's knobs, penalty, window influence and learning rate, with Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import TrialState
from sqlalchemy.exc import DatabaseError
from tqdm import tqdm

from siamcar_ros.data import Sequence
from siamcar_ros.evaluation.one_pass import run_sequence
from siamcar_ros.evaluation.protocols import MEASURES, Protocol, score_sequence, summarize
from siamcar_ros.evaluation.trackers import TrackerSpec
from siamcar_ros.evaluation.workers import open_workers
from siamcar_ros.tracking import SiamCarTracker, read_config

#: The knobs and where they are searched.
RANGES: dict[str, tuple[float, float]] = {
    "penalty_k": (0.0, 0.4),
    "window_influence": (0.0, 0.7),
    "lr": (0.1, 0.9),
}


def sweep(
    spec: TrackerSpec,
    sequences: list[Sequence],
    protocol: Protocol,
    study_path: Path,
    *,
    study_name: str,
    data: str,
    trials: int,
    workers: int | None,
    ray_address: str | None,
    ranges: Mapping[str, tuple[float, float]],
    seed: int,
) -> str:
    """Search for the knobs with the best headline measure, on sequences of `data`.

    A trial tracks all sequences anew: what the network sees depends on where the tracker went. The
    first trial has the tracker's own knobs. The study is kept in an SQLite file, and a call with
    the same file and name continues it.

    `ranges` holds the lowest and highest value of each knob of `RANGES`; workers are as in
    `open_workers`.

    Returns:
        the best knobs as the `tracker` part of a network's YAML file.
    """
    for knob, (low, high) in ranges.items():
        if knob not in RANGES or not low < high:
            raise ValueError(f"no range {knob}={low}:{high}; knobs: {', '.join(RANGES)}")
    params = read_config(spec.network, spec.weights, spec.settings).params
    for end in (0, 1):
        knobs: dict[str, Any] = {knob: ends[end] for knob, ends in ranges.items()}
        replace(params, **knobs)  # raises for one that the tracker refuses
    measure = protocol.headline[0]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{study_path.resolve()}",
            study_name=study_name,
            direction="maximize",
            load_if_exists=True,
        )
    except DatabaseError as error:
        raise ValueError(f"{study_path} cannot hold the studies: {error.orig}") from error
    own = {knob: float(getattr(params, knob)) for knob in RANGES}
    if _inside(own, ranges) and not any(trial.params == own for trial in _done(study)):
        study.enqueue_trial(own)
    setup = partial(_setup, spec, sequences, protocol)
    with (
        open_workers(spec, setup, items=trials, count=workers, ray_address=ray_address) as pool,
        tqdm(total=trials, desc=f"sweep {study_name}", unit="trial") as bar,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Trials under way count as bad, so that the next ones differ from them. With the same seed
        # in each call a sampler would ask the same again.
        study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(study.trials), multivariate=True, constant_liar=pool.count > 1
        )

        def evaluate(trial: optuna.Trial) -> float:
            knobs = {k: trial.suggest_float(k, *ends) for k, ends in ranges.items()}
            return float(pool.call(_evaluate, knobs))

        def show(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            bar.update()
            bar.set_postfix({measure: f"{trial.value:.4f}", "best": f"{study.best_value:.4f}"})

        study.optimize(evaluate, n_trials=trials, n_jobs=pool.count, callbacks=[show])
    done = _done(study)
    before = next((t.value for t in done if t.params == own), None)
    best = max((t for t in done if _inside(t.params, ranges)), key=lambda trial: trial.value or 0.0)
    knobs = {k: round(v, 4) for k, v in best.params.items()}
    told = "not measured" if before is None else f"{before:.4f}"
    return (
        f"# {MEASURES[measure]} {best.value:.4f} on {data}, sequences: {len(sequences)}; {told} "
        f"before. Best of {len(done)} trials of `siamcar sweep`.\n"
        + yaml.safe_dump({"tracker": knobs}, sort_keys=False)
    )


def _setup(
    spec: TrackerSpec,
    sequences: list[Sequence],
    protocol: Protocol,
    device: str | None,
    threads: int | None,
) -> tuple[Any, ...]:
    return (*spec.load_network(device, threads), sequences, protocol)


def _evaluate(held: tuple[Any, ...], knobs: dict[str, float]) -> float:
    """The headline measure with a trial's knobs."""
    network, params, sequences, protocol = held
    tracker = SiamCarTracker(network, replace(params, **knobs))
    scores = {s.name: score_sequence(s, [run_sequence(tracker, s)], protocol) for s in sequences}
    kept = {name: score for name, score in scores.items() if score is not None}
    return summarize("", kept, protocol).measures[protocol.headline[0]]


def _done(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE,))


def _inside(params: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> bool:
    return all(low <= params[knob] <= high for knob, (low, high) in ranges.items())
