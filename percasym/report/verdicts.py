"""The last test evaluation of a run, sample by sample: grades for paired differences, whole records for the gallery."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

SampleName = tuple[str, str, int, int]
"""Task, split, seed and index of a sample."""

_DECODER = json.JSONDecoder()


def last_evaluation(run_dir: Path) -> Path | None:
    """The newest samples/test_<step>.jsonl of a run; None where nothing was evaluated."""
    return max(run_dir.glob("samples/test_*.jsonl"), default=None, key=lambda path: int(path.stem.rpartition("_")[2]))


def grades(path: Path) -> dict[SampleName, Mapping[str, bool | float | None]]:
    """The grades of each sample of an evaluation, by the sample's name.

    Only keys and grades are decoded: token ids are nine tenths of a file, and a study has hundreds of files.
    Raises ValueError, with the line's number, when a line is no test record.
    """
    found = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            key, verdicts = _member(line, "key"), _member(line, "grades")
            if key is None or verdicts is None:
                raise ValueError(f"Line {number} of {path} is no test record, for it has no key or no grades: {line[:80]!r}.")
            found[key["task"], key["split"], key["seed"], key["index"]] = verdicts
    return found


def records(path: Path, num_records: int) -> list[dict[str, Any]]:
    """The first whole records of an evaluation."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, num_records)]


def _member(line: str, name: str) -> Any:
    """The object called `name` at the top of a record; inside a text its quotes would be escaped."""
    mark = f'"{name}": {{'
    at = line.find(mark)
    return None if at < 0 else _DECODER.raw_decode(line, at + len(mark) - 1)[0]
