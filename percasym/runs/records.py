"""Strict JSON and JSON lines, written atomically: the files of a run directory.

NaN and infinity become null, so any JSON parser can read a run. A file is written beside its final path and renamed, so a crash leaves
the old file or the new one.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


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
    """Write `text` to a file beside `path`, then rename it to `path`."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:  # A full disk, or a directory of that name.
        partial.unlink(missing_ok=True)
        raise


def write_lines(path: Path, values: Iterable[object]) -> None:
    """Write one JSON line for each value, atomically."""
    write_whole(path, "".join(line(value) + "\n" for value in values))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON lines file; a truncated last line is left out.

    Raises ValueError, with the line's number, when any other line is not JSON.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text ({error}).") from None
    complete = lines[:-1]  # After the last newline comes nothing, or half a record.
    records = []
    for number, text in enumerate(complete, start=1):
        try:
            records.append(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Line {number} of {path} is not JSON ({getattr(error, 'msg', error)}): {text[:80]!r}.") from None
    return records


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"A key of a run's record must be a text, got {key!r}.")
    return str(key)
