"""Read run directories: configuration, metadata, metrics, summary and the graded test samples.

Reports are made of these values only. Whatever a file of a run contains, reading it ends in a value or in one sentence that names the file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from operator import index
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from percasym import metrics
from percasym.config.files import json_lines, parsed_json, read_json, read_yaml, unfit
from percasym.config.schema import ConfigError, read
from percasym.runs.records import SAMPLED_TEST, TEST, file_name, list_samples, plain, read_lines
from percasym.types import Estimate

T = TypeVar("T")

MAX_METRICS_BYTES = 2**28
"""Of metrics.jsonl (our choice): 100,000 steps of 2.5 kB."""
MAX_COUNT = 2**53
"""Largest whole number that a float, and so a figure, represents exactly."""
MAX_NUMBER = 1e280
"""Largest measurement: sums of a few and products with a count stay finite."""
GROUPS = ("task", "model", "paradigm", "balance", "tracker")
"""Groups of a configuration that reports read."""

METRICS: Mapping[str, str] = {
    "end_to_end": "end to end  a",
    "perception": "perception  a_p",
    "perception_graded": "perception  graded",
    "reasoning": "reasoning  a_r",
    "reasoning_text": "reasoning  text",
    "perception_text": "p* copied from text",
    "faithful": "faithful",
}
"""Key and name of every metric, in the order of the reports."""
SAMPLED: Mapping[str, str] = {
    "sampled_end_to_end": "sampled  a",
    "sampled_perception": "sampled  a_p",
    "sampled_perception_graded": "sampled  graded",
    "sampled_reasoning": "sampled  a_r",
    "sampled_faithful": "sampled  faithful",
}
"""The same of the metrics of sampled answers, which a run has where `evaluation.num_sampled` asked for them."""
SAMPLED_HEADLINE: Mapping[str, str] = {
    "sampled_end_to_end": "sampled a",
    "sampled_perception": "sampled a_p",
    "sampled_reasoning": "sampled a_r",
}
"""The headline metrics of sampled answers and their titles."""
HEADLINE: Mapping[str, str] = dict(zip(metrics.HEADLINE, ("a", "a_p", "a_r"), strict=True))
"""The three headline metrics and their column titles."""
CONTRIBUTIONS: Mapping[str, str] = dict(zip(metrics.Contributions._fields, ("via a_p", "via a_r", "via both", "other"), strict=True))
"""The contributions to a change of a and their titles."""

SampleName = tuple[str, str, int, int]
"""Task, split, seed and index of a sample."""


class SampleGrades(NamedTuple):
    """The grades of one test sample."""

    puzzle: str
    """Samples of one puzzle differ in their pictures only."""
    grades: Mapping[str, bool | float | None]

    @property
    def headline(self) -> tuple[bool | float | None, ...]:
        """Those of a, a_p and a_r."""
        return tuple(self.grades.get(key) for key in HEADLINE)


Grades = Mapping[SampleName, SampleGrades]
"""Those of one evaluation."""
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """summary.json of a finished run; metrics that were not measured are absent."""

    status: str
    before: Mapping[str, Estimate]
    after: Mapping[str, Estimate]
    gain: Mapping[str, Estimate]
    share: Mapping[str, float]
    """Perception's share of tokens, loss and gradient, in [0, 1]; nan where not measured."""
    seconds: Mapping[str, float]
    rounds: Mapping[str, float]
    """What the rounds of RL taught and cost; empty for SFT, and for runs written before it was recorded."""
    num_puzzles: int | None
    """Number of distinct puzzles among the test samples; None for runs written before it was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One number over training."""

    steps: Sequence[int]
    values: Sequence[float]
    """As long as `steps`; nan where the number was not finite."""

    def __bool__(self) -> bool:
        return bool(self.steps)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The files of one run, parsed."""

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

    @property
    def data(self) -> str | None:
        """The fingerprint of its collected rows; None for generated samples."""
        data = self.meta.get("data")
        return str(data["fingerprint"]) if isinstance(data, Mapping) and "fingerprint" in data else None

    def series(self, key: str) -> Series:
        """The values of `key` by step; empty where the run never logged it."""
        points = [(step, values[key]) for step, values in sorted(self.metrics.items()) if key in values]
        return Series(steps=[step for step, _ in points], values=[value for _, value in points])

    @cached_property
    def grades_before(self) -> Grades | None:
        """Of the evaluation before training; None where the run kept none. Raises ValueError when the file is no evaluation."""
        return _grades_at(self.path, 0)

    @cached_property
    def grades_after(self) -> Grades | None:
        """Of the last evaluation; None where the run kept none. Raises ValueError when the file is no evaluation."""
        return _grades_at(self.path, max((file.step for file in list_samples(self.path, TEST)), default=0))


def verdicts(grades: Grades) -> list[tuple[bool, bool]]:
    """Whether percept and answer are right, of each sample of which both were graded."""
    pairs = ((one.grades.get("perception"), one.grades.get("end_to_end")) for one in grades.values())
    return [(bool(perception), bool(outcome)) for perception, outcome in pairs if perception is not None and outcome is not None]


def load_run(path: Path) -> RunRecord:
    """Read one run directory.

    Raises FileNotFoundError when `path` is not one, ConfigError when one of its files cannot be read.
    """
    for name in ("config.yaml", "meta.json"):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} is not a run directory: it has no {name}. Name one such as multirun/<study>/<cell>/seed0.")
    metrics, summary = path / "metrics.jsonl", path / "summary.json"
    return RunRecord(
        path=path.absolute(),
        config=_parsed(path / "config.yaml", _config),
        meta=_parsed(path / "meta.json", _meta),
        metrics=_parsed(metrics, _metrics) if metrics.exists() else {},
        summary=_parsed(summary, lambda file: read_summary(read_json(file, links=False))) if summary.exists() else None,
    )


def load_runs(root: Path) -> list[RunRecord]:
    """Read every run directory at or below `root`, sorted by path. Raises FileNotFoundError when there is none."""
    found = sorted(meta.parent for meta in root.rglob("meta.json") if (meta.parent / "config.yaml").is_file())
    if not found:
        raise FileNotFoundError(f"No run directory at or below {root}. Train one first, or name the folder of a study.")
    return [load_run(path) for path in found]


def by_step(records: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Merge the lines of metrics.jsonl by step; null becomes nan.

    >>> by_step([{"step": 2, "lr": 0.1}, {"step": 2, "eval/end_to_end": None}])
    {2: {'lr': 0.1, 'eval/end_to_end': nan}}
    """
    steps: dict[int, dict[str, float]] = {}
    for record in records:
        numbers = {key: _number(value) for key, value in record.items() if key not in ("step", "not_finite")}
        steps.setdefault(_count(record["step"]), {}).update(numbers)
    return steps


def read_summary(raw: Mapping[str, Any]) -> Summary:
    """Parse the content of summary.json; estimates may be dictionaries or `Estimate`."""
    whole = plain(raw)

    def estimates(part: str) -> dict[str, Estimate]:
        return {key: _estimate(value, f"{part}.{key}") for key, value in whole.get(part, {}).items()}

    def numbers(part: str) -> dict[str, float]:
        return {key: _number(value) for key, value in whole.get(part, {}).items()}

    return Summary(
        status=whole.get("status", "done"),
        before=estimates("before"),
        after=estimates("after"),
        gain=estimates("gain"),
        share=numbers("share"),
        seconds=numbers("seconds"),
        rounds=numbers("rounds"),
        num_puzzles=None if (number := whole.get("num_puzzles")) is None else _count(number),
    )


def last_evaluation(run_dir: Path) -> Path | None:
    """The newest samples/test_<step>.jsonl of a run; None where nothing was evaluated."""
    found = list_samples(run_dir, TEST)
    return found[-1].path if found else None


def _grades_at(run_dir: Path, step: int) -> Grades | None:
    """The grades of an evaluation, with those of the sampled answers to the same prompts, where there are some; None without one."""
    greedy, drawn = (run_dir / file_name(split, step) for split in (TEST, SAMPLED_TEST))
    if not greedy.is_file():
        return None
    found, sampled = read_grades(greedy), read_grades(drawn) if drawn.is_file() else {}
    return {name: own._replace(grades={**own.grades, **sampled[name].grades}) if name in sampled else own for name, own in found.items()}


def read_grades(path: Path) -> Grades:
    """Puzzle and grades of each sample of an evaluation, by the sample's name.

    Only keys, puzzles and grades are decoded: token ids are nine tenths of a file, and a study has hundreds of files.
    Raises ValueError, with the line number, when a line is not a test record.
    """
    found = {}
    for number, raw in json_lines(path, links=False):
        line = raw.decode("utf-8", "replace")
        try:
            key, grades, puzzle = _member(line, "key"), _member(line, "grades"), _member(line, "puzzle") or _member(line, "truth")
            name = (str(key["task"]), str(key["split"]), int(key["seed"]), int(key["index"]))
            found[name] = SampleGrades(str(puzzle), {metric: _grade(value) for metric, value in grades.items()})
            if puzzle is None:
                raise ValueError("no puzzle")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            lacks = "it has no key, p* or grades" if line.rstrip().endswith("}") else "it is cut off"
            sentence = f"Line {number} of {path} is no test record, for {lacks}: {line[:80]!r}."
            raise ValueError(sentence) from error
    return found


def read_samples(path: Path, num_samples: int) -> list[dict[str, Any]]:
    """The first complete records of an evaluation."""
    lines = islice(json_lines(path, links=False), num_samples)
    return [parsed_json(line, f"Line {number} of {path}") for number, line in lines]


def _parsed(file: Path, parse: Callable[[Path], T]) -> T:
    """Parse a file of a run. Raises ConfigError where its content is not what a run writes."""
    try:
        return parse(file)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{unfit(file, 'is not as a run writes it', error)} Restore it, or clear the run away.") from error


def _metrics(file: Path) -> dict[int, dict[str, float]]:
    return by_step(read_lines(file, max_bytes=MAX_METRICS_BYTES, links=False))


def _config(file: Path) -> dict[str, Any]:
    config = read_yaml(file, links=False)
    if not isinstance(config, Mapping):
        raise ValueError("it is empty" if config is None else f"it holds {config!r:.40} in place of options")
    config = dict(config)
    groups = {name: dict(config[name]) for name in GROUPS if config.get(name) is not None}
    for number in (config.get("seed", 0), groups.get("paradigm", {}).get("steps", 0)):
        _count(number)
    return config | groups


def _meta(file: Path) -> dict[str, Any]:
    meta = dict(read_json(file, links=False))
    return meta | {"status": str(meta["status"]), "seconds": read(meta["seconds"], float, "seconds")}


def _estimate(raw: Mapping[str, Any], name: str) -> Estimate:
    if not isinstance(raw, Mapping):
        raise ValueError(f"{name} is {raw!r:.40}, not an estimate")
    low, high = raw["ci95"]
    return Estimate(mean=_number(raw["mean"]), ci95=(_number(low), _number(high)), n=_count(raw["n"]))


def _count(value: object) -> int:
    """A whole number. Raises TypeError for anything else, ValueError beyond `MAX_COUNT`."""
    if abs(number := index(value)) > MAX_COUNT:  # type: ignore[arg-type]
        raise ValueError(f"a number of {len(str(number))} digits counts nothing")
    return number


def _number(value: float | None) -> float:
    """A measurement; null becomes nan. Raises ValueError beyond `MAX_NUMBER`."""
    number = math.nan if value is None else float(value)
    if MAX_NUMBER < abs(number) < math.inf:
        raise ValueError(f"{number:g} was not measured")
    return number


def _grade(value: Any) -> bool | float | None:
    """A grade, or None for what could not be measured. Raises TypeError for anything else."""
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TypeError(f"{value!r} is no grade")


def _member(line: str, name: str) -> Any:
    """The object or text `name` at the top level of a record; quotes inside a text are escaped, so they do not match."""
    found = re.search(rf'"{name}": (?=[{{"])', line)
    return None if found is None else _DECODER.raw_decode(line, found.end())[0]
