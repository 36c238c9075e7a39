"""Archives of results for the servers of benchmarks that withhold their ground truth."""

from __future__ import annotations

import zipfile
from pathlib import Path

from siamcar_ros.data.sequences import Sequence
from siamcar_ros.evaluation.results import TrackerResults


def write_submission(results: TrackerResults, sequences: list[Sequence]) -> Path:
    """Zip a tracker's results as the server wants them, beside the tracker's folder.

    GOT-10k: `SEQUENCE/SEQUENCE_001.txt` and `SEQUENCE/SEQUENCE_time.txt`; TrackingNet:
    `SEQUENCE.txt`. Both have a row x,y,w,h for every frame.

    Returns:
        The archive.

    Raises:
        ValueError: a sequence has no result yet. The server refuses an archive that lacks any.
    """
    missing = [s.name for s in sequences if not results.is_done(s)]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(sequences)} sequences have no result, e.g. {missing[0]}; "
            "run the evaluation to its end before submitting"
        )
    archive = results.folder.with_name(f"{results.tracker}.zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for sequence in sequences:
            paths = [results.boxes_path(sequence.name)]
            if results.layout == "got10k":
                paths.append(results.times_path(sequence.name))
            for path in paths:
                file.write(path, path.relative_to(results.folder))
    return archive
