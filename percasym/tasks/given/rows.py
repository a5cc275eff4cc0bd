"""Check all rows of a collected data set, and assign them to splits.

Unlike a lazy loader, every row is parsed and every image decoded before training starts, so no run fails at step 1,000 because of row
1,000. Splits are decided by the picture, so no test picture is trained on under another question; a data set that names its own splits
keeps them, and the table says where they share pictures.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from percasym.config.escaping import counted, shortened
from percasym.config.network import unreachable
from percasym.tasks.base import RowCheck, split_of
from percasym.tasks.given.files import Record, Row, json_lines
from percasym.tasks.given.item import REMARKS, Item
from percasym.tasks.given.picture import Look, Source
from percasym.types import SampleKey

SPLITS = ("train_sft", "train_rl", "test")
"""Splits of a collected data set; it has no `base` split because no base model is pretrained on it."""
VALIDATION = "validation"
"""Rows that are the test split where no row is called test, and are left out elsewhere."""
SPLIT_NAMES = {
    **{split: split for split in SPLITS}, "train": "train_sft", "training": "train_sft", "sft": "train_sft", "rl": "train_rl",
    "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION, "eval": VALIDATION,
}  # fmt: skip
"""Values of a column `split`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineTable:
    """The parsed items of each split, and the rows that were skipped."""

    source: str
    items: Mapping[str, Sequence[Item]]
    skipped: Sequence[str]
    """One sentence for each skipped row."""
    fingerprint: str
    """Digest of all items in order; equal data give an equal fingerprint."""
    notes: Sequence[str] = ()
    """What was done to rows, or is questionable about the splits, one sentence each."""

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
                f"{self.source} has {counted(len(items), 'test row')}, and sample {key.index + 1} of them was asked for. "
                f"Set evaluation.num_samples and evaluation.num_curve_samples (of an export: --num) to at most {len(items)}."
            )
        epoch_key = SampleKey(task=key.task, split=key.split, seed=key.seed, index=epoch)
        return items[_permutation(epoch_key, len(items))[position]]


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
        for number, record in enumerate(rows):
            yield Row(where=f"{path}, {split} row {number}", split=split, raw=record)


def build_table(
    rows: Iterable[Row],
    parse: Callable[[Record], Item],
    look: Callable[[Source], Look],
    *,
    source: str,
    skip: bool,
    check: RowCheck | None = None,
) -> OfflineTable:
    """Parse and check all rows. A row without a split is assigned by the hash of its picture.

    `check` refuses rows that the model cannot take. Raises ValueError with the location of the first bad row, unless `skip`.
    """
    table = _Builder(split_of_content={}, looks={})
    for row in rows:
        try:
            table.add(row, parse, look, check)
        except ValueError as error:
            if not skip:
                raise ValueError(f"{row.where}: {error} Correct the row, or set task.on_error=skip.") from error
            table.skipped.append(f"{row.where}: {error}")
    if not table.added:
        reason = f" The first of {len(table.skipped)} that were skipped: {table.skipped[0]}" if table.skipped else ""
        raise ValueError(f"{source} has no rows.{reason}")
    return table.finished(source)


@dataclass(slots=True, kw_only=True)
class _Builder:
    """The rows that were read so far."""

    split_of_content: dict[str, str]
    """Split of each picture and question."""
    looks: dict[Path, Look]
    """Pictures that were decoded, by path: a picture with ten questions is decoded once."""
    added: list[tuple[str, Item]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    named: bool | None = None
    """Whether the rows name their splits; None before the first row."""

    def add(self, row: Row, parse: Callable[[Record], Item], look: Callable[[Source], Look], check: RowCheck | None) -> None:
        """Raises ValueError with what is wrong with the row."""
        record = row.record
        item = parse(record)
        seen = self._look(item.picture, look)
        if check is not None:
            check(item.named_texts, seen.size)
        split = self._split(row, record, seen)
        if split == "train_sft" and not item.reasoning.strip():
            raise ValueError("its reasoning is empty, and rows of train_sft train both perception and reasoning.")
        content = hashlib.blake2b(f"{seen.digest}{item.query}".encode(), digest_size=16).hexdigest()
        if row.split and self.split_of_content.setdefault(content, split) != split:
            raise ValueError(f"its picture and question stand in split {self.split_of_content[content]} too.")
        self.added.append((split, replace(item, content=content, picture_digest=seen.digest)))
        self.remarks.update([*item.remarks, *(["resized"] if seen.resized else [])])

    def finished(self, source: str) -> OfflineTable:
        """The table of all rows."""
        notes = [f"{counted(number, REMARKS[remark][0])} {REMARKS[remark][1]}" for remark, number in sorted(self.remarks.items())]
        present = Counter(split for split, _ in self.added)
        if present[VALIDATION] and present["test"]:
            notes.append(f"{counted(present[VALIDATION], 'validation row')} left out, because there are test rows.")
        elif present[VALIDATION]:
            notes.append(f"{counted(present[VALIDATION], 'validation row')} taken as the test split.")
            self.added = [("test" if split == VALIDATION else split, item) for split, item in self.added]
        items: dict[str, list[Item]] = {split: [] for split in SPLITS}
        digest = hashlib.blake2b(digest_size=8)
        for split, item in self.added:
            if split in items:
                items[split].append(item)
                digest.update("\x1f".join((item.content, split, *item.texts)).encode())
        notes += leaks(items)
        return OfflineTable(source=source, items=items, skipped=self.skipped, fingerprint=digest.hexdigest(), notes=notes)

    def _look(self, picture: Source, look: Callable[[Source], Look]) -> Look:
        if isinstance(picture, bytes):
            return look(picture)
        if picture not in self.looks:
            self.looks[picture] = look(picture)
        return self.looks[picture]

    def _split(self, row: Row, record: Record, seen: Look) -> str:
        if row.split:
            return row.split
        value = record.get("split")
        if self.named is None:
            self.named = value is not None
        if self.named != (value is not None):
            here, others = ("a", "no") if value is not None else ("no", "a")
            raise ValueError(f"it has {here} split, and the rows before have {others} split.")
        if value is None:
            return content_split(seen.digest)
        if not isinstance(value, str) or value.lower() not in SPLIT_NAMES:
            raise ValueError(f"its split must be one of {', '.join(SPLIT_NAMES)}, got {value!r:.40}.")
        return SPLIT_NAMES[value.lower()]


def leaks(items: Mapping[str, Sequence[Item]]) -> list[str]:
    """A warning where test pictures are trained on, which only a data set's own splits can do."""
    trained = {item.picture_digest for split in ("train_sft", "train_rl") for item in items[split]}
    tested = {item.picture_digest for item in items["test"]}
    shared = tested & trained
    if not shared:
        return []
    questions = {item.content for split in ("train_sft", "train_rl") for item in items[split]} & {item.content for item in items["test"]}
    same = f", {len(questions)} of them with the same question" if questions else ""
    return [f"Warning: {len(shared)} of {len(tested)} test pictures are trained on, too{same}. Gains on them are no measure of seeing."]


def content_split(digest: str) -> str:
    """The split of a picture's digest: 70 % train_sft (which takes the share of `base` too), 15 % train_rl, 15 % test.

    >>> [content_split(str(number)) for number in range(3)]
    ['test', 'train_sft', 'train_sft']
    """
    split = split_of(digest)
    return "train_sft" if split == "base" else split


@lru_cache(maxsize=8)  # Computed once an epoch, used by each of its samples.
def _permutation(key: SampleKey, num: int) -> list[int]:
    return Random(key.entropy("order")).sample(range(num), num)


def _load_dataset(path: str) -> Any:
    """A `datasets` dictionary of splits, one of `SPLITS` at least; images stay encoded. Without a network, what the package has in its
    cache.

    Raises ValueError when there is none.
    """
    if Path(path).expanduser().is_file():
        names = ", ".join(f"{split}.jsonl" for split in SPLITS)
        raise ValueError(f"task.path={path} is a file, and task=hub reads a folder of {names}, or a hub id. Set task=jsonl for a file.")
    try:
        import datasets  # Optional dependency.
    except ImportError:
        raise ValueError(
            f"task.path={path} holds no {'.jsonl, '.join(SPLITS)}.jsonl, and anything else needs the package datasets: "
            "pip install 'percasym[hub]'."
        ) from None
    offline = None if Path(path).expanduser().exists() else unreachable()
    if offline and hasattr(datasets, "config"):
        datasets.config.HF_HUB_OFFLINE = True  # Read when the package was imported.
    if hasattr(datasets, "disable_progress_bars"):
        datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(path)
        if splits := {split: rows.cast_column("image", datasets.Image(decode=False)) for split, rows in found.items() if split in SPLITS}:
            return splits
    except Exception as error:  # datasets raises many types for one cause: the set cannot be read.
        if offline:
            raise ValueError(
                f"task.path={path} is no folder here, is not in the local cache, and the Hugging Face hub cannot be reached ({offline}). "
                "Give task.path a folder, or download the set where there is a network."
            ) from error
        reason = shortened(error)
        raise ValueError(f"task.path={path} could not be loaded ({type(error).__name__}: {reason}).") from error
    held, wanted = ", ".join(map(str, found)) or "none", ", ".join(SPLITS)
    raise ValueError(f"task.path={path} has none of the splits {wanted} (it has {held}). Rename them, or set task=jsonl for a file.")
