"""The files of other benchmarks as rows: VLMEvalKit's TSV, the annotations of MM-HELIX's generators, JSON and Parquet.

Unlike a reader with pandas, one row is in memory at a time, and a line longer than the limit is refused.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from percasym.config.files import home
from percasym.tasks.given.files import Row, read_rows, require_unique
from percasym.tasks.given.picture import Source, image_source
from percasym.tasks.outside.graphs import literal

TSV_OF_HELIX = "MM-HELIX.tsv"
"""The file that VLMEvalKit writes into its data folder, beside images/MM-HELIX/."""
ANNOTATIONS = "annotations.json"
"""The file that each generator of MM-HELIX writes into its folder, beside images/."""


def outside_rows(path: Path, *, max_bytes: int) -> Iterator[Row]:
    """The rows of a file or folder; a relative picture of annotations.json in a subfolder gets that folder.

    Raises ValueError when there is no such file, or it is none of the kinds that are read.
    """
    path = home(path)
    if path.is_dir() and (path / TSV_OF_HELIX).is_file():
        path = path / TSV_OF_HELIX
    if path.is_dir() and (parts := sorted([*path.glob(ANNOTATIONS), *path.glob(f"*/{ANNOTATIONS}")])):
        for part in parts:
            for row in read_rows(part, max_bytes=max_bytes, split="test"):
                yield replace(row, raw=_below(row.raw, part.parent), split="test")
        return
    rows = _tab_separated(path, max_bytes) if path.suffix == ".tsv" else read_rows(path, max_bytes=max_bytes)
    for row in rows:
        yield replace(row, split="test")


def picture(record: Mapping[str, Any], folder: Path, columns: tuple[str, ...]) -> Source:
    """The picture of a row, in the first of `columns` that it has.

    Raises ValueError when it has none, or more than one picture.
    """
    for name in columns:
        value = record.get(name)
        if isinstance(value, str) and value.startswith("["):
            value = literal(value)  # pandas writes a list as Python does.
        if value is not None and value != []:
            return image_source(value, folder)
    raise ValueError(f"it has no column {' or '.join(columns)} with a picture; its columns are {', '.join(record)}.")


def text(record: Mapping[str, Any], *columns: str) -> str | None:
    """The text of the first of `columns` that a row has; a list of one text counts as that text."""
    for name in columns:
        value = record.get(name)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if isinstance(value, str) and value.strip():
            return value
    return None


def _below(raw: object, folder: Path) -> Any:
    """The columns with a relative picture put below `folder`."""
    if not isinstance(raw, Mapping):
        return raw
    value = raw.get("image")
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return {**raw, "image": [str((folder / name).absolute()) for name in names]}
    return raw


def _tab_separated(path: Path, max_bytes: int) -> Iterator[Row]:
    """The rows of a TSV with a header; an empty cell is a column that the row does not have."""
    if not path.is_file():
        raise ValueError(f"There is no file {path}. Give task.path a TSV, JSON or Parquet file.")
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(_lines(path, file, max_bytes), delimiter="\t", strict=True)
        try:
            require_unique(path, reader.fieldnames or ())
            for record in reader:
                where = f"{path}, line {reader.line_num}"
                if None in record or None in record.values():
                    raise ValueError(f"{where}: it has more or fewer cells than the header.")
                yield Row(where=where, split=None, raw={name: value for name, value in record.items() if value != ""})
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.reader.line_num} is not tab-separated text ({error}).") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error}).") from None


def _lines(path: Path, file: TextIO, max_bytes: int) -> Iterator[str]:
    while line := file.readline(max_bytes + 1):
        if len(line) > max_bytes:
            raise ValueError(f"{path} has a line that is longer than task.max_bytes={max_bytes}.")
        yield line
