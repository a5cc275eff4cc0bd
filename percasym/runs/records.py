"""Strict JSON and JSON lines, written atomically: the files of a run directory.

NaN and infinity become null, so any JSON parser can read a run. A file is written beside its final path and renamed, so a crash leaves
the old file or the new one.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from percasym.config.files import MAX_LINES_BYTES, UnfitFileError, json_lines, parsed_json
from percasym.config.redaction import redacted

_SAMPLES = re.compile(r"(?P<split>[a-z_]+)_(?P<step>\d{1,12})\.jsonl")
TEST = "test"
"""Split name of the greedy answers to the test samples."""
SAMPLED_TEST = "sampled"
"""The same of answers drawn at temperature 1, to prompts of the test split."""
ROLLOUTS = "rollouts"
"""The same of the rollouts of a round of RL."""


def plain(value: object) -> Any:
    """`value` in the types of JSON: dataclasses and mappings as dicts, sequences as lists, NaN and infinity as None.

    Raises TypeError for anything else, so no object is ever written as its repr.

    >>> plain({"mean": float("nan"), "ci95": (0.1, 0.3), "path": Path("a/b")})
    {'mean': None, 'ci95': [0.1, 0.3], 'path': 'a/b'}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    raise TypeError(f"A run directory holds numbers, texts, lists and mappings, got {type(value).__name__}: {value!r:.80}.")


def line(value: object) -> str:
    """`value` as one line of strict JSON."""
    return json.dumps(plain(value), allow_nan=False, ensure_ascii=False)


def document(value: object) -> str:
    """`value` as an indented JSON text."""
    return json.dumps(plain(value), allow_nan=False, ensure_ascii=False, indent=2) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write `text`, without secrets, to a file beside `path`, then rename it to `path`."""
    # Halves of characters are written escaped, as in JSON.
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(redacted(text))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path for a new file beside `path`, which takes its place at the end of the block; where that fails, `path` stays as it was.

    A folder that somebody else made may hold links by either name: they are replaced, and nothing is written through them.
    """
    partial = path.with_name(f".{path.name}.partial")
    if partial.is_symlink():
        partial.unlink()
    try:
        yield partial
        partial.replace(path)
    except OSError:  # A full disk, or a directory of that name.
        if not partial.is_dir():
            partial.unlink(missing_ok=True)
        raise


def write_lines(path: Path, values: Iterable[object]) -> None:
    """Write one JSON line for each value, atomically."""
    write_whole(path, "".join(line(value) + "\n" for value in values))


def read_lines(path: Path, *, max_bytes: int = MAX_LINES_BYTES, links: bool = True) -> list[dict[str, Any]]:
    """The records of a JSON lines file; a truncated last line is left out. Without `links`, a symbolic link is refused.

    Raises ValueError, with the line's number, when any other line is not JSON, and for a file or line that is too large.
    """
    records = []
    for number, raw in json_lines(path, max_bytes=max_bytes, links=links):
        if not raw.endswith(b"\n"):  # Half a record.
            break
        try:
            text = raw[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not text ({error}).") from None
        try:
            records.append(parsed_json(text, f"Line {number} of {path}"))
        except UnfitFileError as error:
            raise ValueError(f"{str(error).removesuffix('.')}: {text[:80]!r}.") from None
    return records


OPTIONS = {
    "percasym.tasks.given.task.Given": "jsonl",
    "percasym.tasks.released.task.Hub": "hub",
    "percasym.tasks.outside.task.MmHelix": "mm_helix",
    "percasym.tasks.outside.task.Vgrp": "vgrp",
    "percasym.runs.trackers.NoTracker": "none",
    "percasym.runs.trackers.WandbTracker": "wandb",
    "percasym.config.settings.DeepSpeedSettings": "deepspeed",
    "percasym.config.settings.TorchSettings": "torch",
    "percasym.config.sampling.Native": "native",
    "percasym.config.sampling.Vllm": "vllm",
}
"""Classes whose option is named neither after their module nor after them."""


def option_name(config: Mapping[str, Any], group: str) -> str | None:
    """The option chosen in a group, from the module of its class, or from the class where a module holds several.

    >>> option_name({"task": {"_target_": "percasym.tasks.sudoku.task.Sudoku"}}, "task")
    'sudoku'
    >>> option_name({"paradigm": {"_target_": "percasym.config.paradigm.Rl"}}, "paradigm")
    'rl'
    """
    target = str((config.get(group) or {}).get("_target_", ""))
    if target in OPTIONS:
        return OPTIONS[target]
    *path, name = target.split(".")
    modules = [module for module in path if module != "task"]
    if not modules:
        return None
    return name.lower() if modules[-1] == group else modules[-1]


def file_name(split: str, step: int) -> str:
    """Where a run directory keeps the records of one evaluation.

    >>> file_name("test", 400)
    'samples/test_000400.jsonl'
    """
    return f"samples/{split}_{step:06d}.jsonl"


class SampleFile(NamedTuple):
    """One file of the samples of a run."""

    step: int
    split: str
    path: Path


def list_samples(run: Path, split: str | None = None) -> list[SampleFile]:
    """The files of samples of a run by step, those of one split if named; other files in samples/ are none."""
    named = [(_SAMPLES.fullmatch(path.name), path) for path in run.glob("samples/*.jsonl")]
    found = (SampleFile(int(match["step"]), match["split"], path) for match, path in named if match)
    return sorted(one for one in found if split in (None, one.split))


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"A key of a run's record must be a text, got {key!r}.")
    return str(key)
