"""The last test evaluation of a run, sample by sample: puzzles and grades for paired differences, whole records for the gallery."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

SampleName = tuple[str, str, int, int]
"""Task, split, seed and index of a sample."""

_DECODER = json.JSONDecoder()


def last_evaluation(run_dir: Path) -> Path | None:
    """The newest samples/test_<step>.jsonl of a run; None where nothing was evaluated."""
    return max(run_dir.glob("samples/test_*.jsonl"), default=None, key=lambda path: int(path.stem.rpartition("_")[2]))


def first_evaluation(run_dir: Path) -> Path | None:
    """The samples of the evaluation before training; None where a run keeps none."""
    path = run_dir / "samples" / "test_000000.jsonl"
    return path if path.is_file() else None


class Graded(NamedTuple):
    """What a report's numbers need of a sample."""

    puzzle: str
    """Samples of one puzzle differ in their pictures only."""
    grades: Mapping[str, bool | float | None]


def graded(path: Path) -> dict[SampleName, Graded]:
    """Puzzle and grades of each sample of an evaluation, by the sample's name.

    Only these and the keys are decoded: token ids are nine tenths of a file, and a study has hundreds of files.
    Raises ValueError, with the line's number, when a line is no test record.
    """
    found = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                key, verdicts, puzzle = _member(line, "key"), _member(line, "grades"), _member(line, "puzzle") or _member(line, "truth")
                name = (str(key["task"]), str(key["split"]), int(key["seed"]), int(key["index"]))
                found[name] = Graded(str(puzzle), {metric: _grade(value) for metric, value in verdicts.items()})
                if puzzle is None:
                    raise ValueError("no puzzle")
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                sentence = f"Line {number} of {path} is no test record, for it has no key, p* or grades: {line[:80]!r}."
                raise ValueError(sentence) from error
    return found


def records(path: Path, num_records: int) -> list[dict[str, Any]]:
    """The first whole records of an evaluation."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, num_records)]


def _grade(value: Any) -> bool | float | None:
    """A verdict, a graded value, or None for what could not be measured. Raises TypeError for anything else."""
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TypeError(f"{value!r} is no grade")


def _member(line: str, name: str) -> Any:
    """The object or text called `name` at the top of a record; inside a text its quotes would be escaped."""
    found = re.search(rf'"{name}": (?=[{{"])', line)
    return None if found is None else _DECODER.raw_decode(line, found.end())[0]
