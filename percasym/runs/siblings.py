"""The evaluation before training, found in another run of the same study: nothing that it depends on differs.

Cells of a study begin from one model and answer the same test samples, so each would decode the same answers again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from percasym.config.schema import ConfigError
from percasym.runs.identity import find, first_difference

Recorded = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Configuration and meta.json of a run."""

ONLY_TRAINING = ("seed", "paradigm", "balance", "reward", "tokens")
"""Parts of a configuration on which an evaluation before training does not depend: `evaluation.seed` chooses its samples."""
ALIKE = ("git", "versions", "device", "images", "checkpoint", "data")
"""Parts of meta.json that must be equal, too: the code, its libraries, the hardware, the weights and the data."""


def same_start(run: Path, records: str) -> Path | None:
    """A run of the study of `run` with the file `records` whose evaluation before training is that of `run`; None where there is none.

    Runs lie in <study>/<cell>/<seed>. With plug-ins, or from a checkout with changes, nothing is taken over: the commit does not say what
    was run.
    """
    run = run.absolute()
    own, study = _committed(run), run.parents[1]
    if own is None or own[0].get("study") != study.name or own[0].get("plugins"):
        return None
    for other in sorted(study.glob("*/*")):
        if other != run and (other / records).is_file() and _alike(own, _committed(other)):
            return other
    return None


def _committed(path: Path) -> Recorded | None:
    """Configuration and meta.json of the run at `path`; None where no run can be read, or its code had changes."""
    try:
        found = find(path)
    except (ConfigError, OSError):
        return None
    return None if found.config is None or found.meta is None or found.meta.get("dirty") else (found.config, found.meta)


def _alike(own: Recorded, other: Recorded | None) -> bool:
    if other is None:
        return False
    (config, meta), (other_config, other_meta) = own, other
    same = all(meta.get(name) == other_meta.get(name) for name in ALIKE)
    return same and first_difference(other_config, config, skipped=ONLY_TRAINING) is None
