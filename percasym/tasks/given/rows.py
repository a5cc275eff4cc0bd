"""Read all rows of a collected data set, check them, and assign them to splits.

Rows come from a file of JSON lines, a folder of them, or the package `datasets`. Unlike a lazy loader, every row is parsed and every
image decoded before training starts, so no run fails at step 1,000 because of row 1,000.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from percasym.tasks.base import split_of
from percasym.tasks.given.item import Item, Record
from percasym.types import SampleKey

SPLITS = ("train_sft", "train_rl", "test")
"""Splits of a collected data set; it has no `base` split because no base model is pretrained on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An unparsed row."""

    where: str
    """Its location, for error messages: "rows.jsonl, line 7"."""
    split: str | None
    """None if the split is derived from the content."""
    raw: bytes | Record | None
    """A line of JSON, or the columns; None for a line over the size limit."""

    @property
    def record(self) -> Record:
        """Its columns.

        Raises ValueError when the line is no JSON object.
        """
        if self.raw is None:
            raise ValueError("it is longer than task.max_bytes.")
        if not isinstance(self.raw, bytes):
            return self.raw
        try:
            record = json.loads(self.raw)
        except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
            raise ValueError(f"it is not JSON ({error}).") from None
        except RecursionError:
            raise ValueError("it is nested too deeply.") from None
        if not isinstance(record, dict):
            raise ValueError(f"it is no JSON object, got {type(record).__name__}.")
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineTable:
    """The parsed items of each split, and the rows that were skipped."""

    source: str
    items: Mapping[str, Sequence[Item]]
    skipped: Sequence[str]
    """One sentence for each skipped row."""
    fingerprint: str
    """Digest of all items in order; equal data give an equal fingerprint."""

    def item(self, key: SampleKey) -> Item:
        """The item of a key; each epoch has its own permutation of the split, derived from the key's seed.

        Raises ValueError for an empty split, and past the end of the test split, where a row would be counted twice.
        """
        items = self.items.get(key.split, ())
        if not items:
            held = ", ".join(f"{name} {len(rows)}" for name, rows in self.items.items())
            raise ValueError(f"{self.source} has no rows of split {key.split} (rows: {held}).")
        epoch, position = divmod(key.index, len(items))
        if key.split == "test" and epoch:
            raise ValueError(
                f"{self.source} has {len(items)} test rows, and sample {key.index + 1} of them was asked for. "
                f"Set evaluation.num_samples and evaluation.num_curve_samples (of an export: --num) to at most {len(items)}."
            )
        epoch_key = SampleKey(task=key.task, split=key.split, seed=key.seed, index=epoch)
        return items[_permutation(epoch_key, len(items))[position]]


def json_lines(path: Path, *, max_bytes: int, split: str | None = None) -> Iterator[Row]:
    """The non-blank lines of a file; a line over the limit is skipped while reading, not stored.

    Raises ValueError when the file does not exist.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path}. Give task.path a file of JSON lines.")
    with path.open("rb") as file:
        for number in count(1):
            line = file.readline(max_bytes + 1)
            if not line:
                return
            fits = len(line) <= max_bytes or line.endswith(b"\n")
            while not line.endswith(b"\n") and (more := file.readline(max_bytes)):
                line = more
            if not fits or line.strip():
                yield Row(where=f"{path}, line {number}", split=split, raw=line if fits else None)


def released_rows(path: str, *, max_bytes: int) -> Iterator[Row]:
    """The rows of a set in the paper's format: a folder with <split>.jsonl, or anything `datasets` loads (a hub id, a parquet folder).

    Raises ValueError when `datasets` is needed but not installed, or cannot load the path.
    """
    folder = Path(path).expanduser()
    files = {split: folder / f"{split}.jsonl" for split in SPLITS}
    if any(file.is_file() for file in files.values()):
        for split, file in files.items():
            if file.is_file():
                yield from json_lines(file, max_bytes=max_bytes, split=split)
        return
    for split, rows in _load_dataset(str(folder) if folder.exists() else path).items():
        if split in SPLITS:
            for number, record in enumerate(rows):
                yield Row(where=f"{path}, {split} row {number}", split=split, raw=record)


def build_table(
    rows: Iterable[Row],
    parse: Callable[[Record], Item],
    image: Callable[[Item], bytes],
    *,
    source: str,
    skip: bool,
) -> OfflineTable:
    """Parse all rows. A row without a split is assigned by the hash of its picture and question, so duplicates share a split.

    Raises ValueError with the location of the first bad row, unless `skip`.
    """
    items: dict[str, list[Item]] = {split: [] for split in SPLITS}
    split_of_content: dict[str, str] = {}
    skipped = []
    digest = hashlib.blake2b(digest_size=8)
    for row in rows:
        try:
            item = parse(row.record)
            content = hashlib.blake2b(image(item) + item.query.encode(), digest_size=16).hexdigest()
            split = row.split or content_split(content)
            if split_of_content.setdefault(content, split) != split:
                raise ValueError(f"its picture and question stand in split {split_of_content[content]} too.")
        except ValueError as error:
            if not skip:
                raise ValueError(f"{row.where}: {error} Correct the row, or set task.on_error=skip.") from error
            skipped.append(f"{row.where}: {error}")
            continue
        items[split].append(replace(item, content=content))
        digest.update("\x1f".join((content, split, *item.texts)).encode())
    if not split_of_content:
        reason = f" The first of {len(skipped)} that were skipped: {skipped[0]}" if skipped else ""
        raise ValueError(f"{source} has no rows.{reason}")
    return OfflineTable(source=source, items=items, skipped=skipped, fingerprint=digest.hexdigest())


def content_split(content: str) -> str:
    """The split of a content digest: 70 % train_sft (which takes the share of `base` too), 15 % train_rl, 15 % test.

    >>> [content_split(str(number)) for number in range(3)]
    ['test', 'train_sft', 'train_sft']
    """
    split = split_of(content)
    return "train_sft" if split == "base" else split


@lru_cache(maxsize=8)  # Computed once an epoch, used by each of its samples.
def _permutation(key: SampleKey, num: int) -> list[int]:
    return Random(key.entropy("order")).sample(range(num), num)


def _load_dataset(path: str) -> Any:
    """A `datasets` dictionary of splits; images stay encoded."""
    try:
        from datasets import Image, load_dataset  # Optional dependency.
    except ImportError:
        raise ValueError(
            f"task.path={path} holds no {'.jsonl, '.join(SPLITS)}.jsonl, and anything else needs the package datasets: "
            "pip install 'percasym[hub]'."
        ) from None
    try:
        return {split: rows.cast_column("image", Image(decode=False)) for split, rows in load_dataset(path).items()}
    except Exception as error:  # datasets raises many types for one cause: the set cannot be read.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"task.path={path} could not be loaded ({type(error).__name__}: {reason}).") from error
