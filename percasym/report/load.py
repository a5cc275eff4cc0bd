"""Run directories as plain values, the only thing a report is made of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, TypeVar

import yaml

from percasym.config.schema import ConfigError, read
from percasym.runs.records import plain, read_lines
from percasym.types import Estimate

T = TypeVar("T")

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's safe loader where PyYAML has it: five times as fast, which two hundred runs feel."""

MOST = 2**53
"""Beyond it a figure could not tell whole numbers apart."""
LARGEST = 1e280
"""Beyond it a sum of measurements, or a measurement times a count, could lie beyond all floats."""
GROUPS = ("task", "model", "paradigm", "balance", "tracker")
"""Groups of a configuration that a report reads."""

METRICS: Mapping[str, str] = {
    "end_to_end": "end to end  a",
    "perception": "perception  a_p",
    "perception_graded": "perception  graded",
    "reasoning": "reasoning  a_r",
    "reasoning_text": "reasoning  text",
    "faithful": "faithful",
}
"""Key and name of every metric, in the order in which reports show them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a finished run says of itself; metrics that were not measured are absent."""

    status: str
    before: Mapping[str, Estimate]
    after: Mapping[str, Estimate]
    gain: Mapping[str, Estimate]
    share: Mapping[str, float]
    """Perception's share of tokens, loss and gradient, in [0, 1]; nan where not measured."""
    seconds: Mapping[str, float]
    num_puzzles: int | None
    """Different puzzles among the test samples; None in runs of earlier revisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One number over training."""

    steps: Sequence[int]
    values: Sequence[float]
    """As long as `steps`; nan where the number was not finite."""

    def __bool__(self) -> bool:
        return bool(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything that was written about one run."""

    path: Path
    config: Mapping[str, Any]
    meta: Mapping[str, Any]
    metrics: Mapping[int, Mapping[str, float]]
    """Finished optimizer steps -> the numbers of that step."""
    summary: Summary | None
    """None while the run is not finished."""

    @property
    def cell(self) -> str:
        """Name of the experiment's cell: the directory above `seed<n>`."""
        return self.path.parent.name if self.path.name.startswith("seed") else self.path.name

    def series(self, key: str) -> Series:
        """The steps that have `key`, in order."""
        points = [(step, values[key]) for step, values in sorted(self.metrics.items()) if key in values]
        return Series(steps=[step for step, _ in points], values=[value for _, value in points])


def load_run(path: Path) -> RunRecord:
    """Read one run directory.

    Raises FileNotFoundError when `path` is not one, ConfigError when a file of it cannot be read.
    """
    for name in ("config.yaml", "meta.json"):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} is not a run directory: it has no {name}. Name one such as multirun/<study>/<cell>/seed0.")
    metrics, summary = path / "metrics.jsonl", path / "summary.json"
    return RunRecord(
        path=path.absolute(),
        config=_part(path / "config.yaml", _config),
        meta=_part(path / "meta.json", _meta),
        metrics=_part(metrics, lambda file: by_step(read_lines(file))) if metrics.exists() else {},
        summary=_part(summary, lambda file: read_summary(json.loads(file.read_text(encoding="utf-8")))) if summary.exists() else None,
    )


def load_runs(root: Path) -> list[RunRecord]:
    """Read every run directory at or below `root`, in the order of their paths.

    Raises FileNotFoundError when there is none.
    """
    found = sorted(meta.parent for meta in root.rglob("meta.json") if (meta.parent / "config.yaml").is_file())
    if not found:
        raise FileNotFoundError(f"No run directory at or below {root}. Train one first, or name the folder of a study.")
    return [load_run(path) for path in found]


def by_step(records: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """The lines of metrics.jsonl with those of one step put together; null is nan.

    >>> by_step([{"step": 2, "lr": 0.1}, {"step": 2, "eval/end_to_end": None}])
    {2: {'lr': 0.1, 'eval/end_to_end': nan}}
    """
    steps: dict[int, dict[str, float]] = {}
    for record in records:
        numbers = {key: _number(value) for key, value in record.items() if key not in ("step", "not_finite")}
        steps.setdefault(_count(record["step"]), {}).update(numbers)
    return steps


def read_summary(raw: Mapping[str, Any]) -> Summary:
    """The content of summary.json, or what is about to become it (Estimates are welcome)."""
    whole = plain(raw)

    def estimates(part: str) -> dict[str, Estimate]:
        return {key: _estimate(value) for key, value in whole.get(part, {}).items()}

    def numbers(part: str) -> dict[str, float]:
        return {key: _number(value) for key, value in whole.get(part, {}).items()}

    return Summary(
        status=whole.get("status", "done"),
        before=estimates("before"),
        after=estimates("after"),
        gain=estimates("gain"),
        share=numbers("share"),
        seconds=numbers("seconds"),
        num_puzzles=None if (number := whole.get("num_puzzles")) is None else _count(number),
    )


def _part(file: Path, read: Callable[[Path], T]) -> T:
    """What `read` makes of a file of a run. Raises ConfigError when that is not as a run writes it, whatever else it may be."""
    try:
        return read(file)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{file} is not as a run writes it ({reason}). Restore it, or clear the run away.") from error


def _config(file: Path) -> dict[str, Any]:
    config = dict(yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER))
    groups = {name: dict(config[name]) for name in GROUPS if config.get(name) is not None}
    for number in (config.get("seed", 0), groups.get("paradigm", {}).get("steps", 0)):
        _count(number)
    return config | groups


def _meta(file: Path) -> dict[str, Any]:
    meta = dict(json.loads(file.read_text(encoding="utf-8")))
    return meta | {"status": str(meta["status"]), "seconds": read(meta["seconds"], float, "seconds")}


def _estimate(raw: Mapping[str, Any]) -> Estimate:
    low, high = raw["ci95"]
    return Estimate(mean=_number(raw["mean"]), ci95=(_number(low), _number(high)), n=_count(raw["n"]))


def _count(value: object) -> int:
    """A whole number. Raises TypeError for anything else, ValueError beyond `MOST`."""
    if abs(number := index(value)) > MOST:  # type: ignore[arg-type]
        raise ValueError(f"a number of {len(str(number))} digits counts nothing")
    return number


def _number(value: float | None) -> float:
    """A measurement; null is nan. Raises ValueError beyond `LARGEST`."""
    number = math.nan if value is None else float(value)
    if LARGEST < abs(number) < math.inf:
        raise ValueError(f"{number:g} was not measured")
    return number
