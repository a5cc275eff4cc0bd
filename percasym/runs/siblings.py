"""The evaluation before training, found in another run of the same study: nothing that it depends on differs.

Cells of a study begin from one model and answer the same test samples, so each would decode the same answers again.
"""

from __future__ import annotations

from pathlib import Path

from percasym.config.schema import ConfigError
from percasym.runs.identity import Found, find, first_difference

ONLY_TRAINING = ("seed", "paradigm", "balance", "reward", "tokens")
"""Parts of a configuration on which an evaluation before training does not depend: `evaluation.seed` chooses its samples."""
ALIKE = ("git", "versions", "device", "images", "checkpoint", "data")
"""Parts of meta.json that must be equal, too: the code, its libraries, the hardware, the weights and the data."""


def same_start(run: Path, records: str) -> Path | None:
    """A run of the study of `run` with the file `records` whose evaluation before training is that of `run`; None where there is none.

    Runs lie in <study>/<cell>/<seed>. From a checkout with changes nothing is taken over: its commit does not say what was run.
    """
    run = run.absolute()
    own, study = find(run), run.parents[1]
    if own.config is None or own.meta is None or own.meta.get("dirty") or own.config.get("study") != study.name:
        return None
    others = (path.parents[len(Path(records).parts) - 1] for path in sorted(study.glob(f"*/*/{records}")))
    return next((other for other in others if other != run and _alike(own, other)), None)


def _alike(own: Found, path: Path) -> bool:
    try:
        other = find(path)
    except (ConfigError, OSError):  # What cannot be read as a run is none.
        return False
    if other.config is None or other.meta is None or other.meta.get("dirty"):
        return False
    assert own.config is not None and own.meta is not None
    same = all(own.meta.get(name) == other.meta.get(name) for name in ALIKE)
    return same and first_difference(other.config, own.config, skipped=ONLY_TRAINING) is None
