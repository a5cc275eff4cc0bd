"""All rows of someone's data, read, checked and dealt to splits, once.

Every row is read before anything is trained, pictures decoded, so that no run stops at its thousandth step over row 1,000.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

from percasym.tasks.base import split_of
from percasym.tasks.given.item import Item, Record
from percasym.tasks.given.source import SPLITS, Row
from percasym.types import SampleKey


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineTable:
    """The items of each split, and what became of the rows."""

    source: str
    items: Mapping[str, Sequence[Item]]
    skipped: Sequence[str]
    """A sentence for each row that was left out."""
    fingerprint: str
    """Of all items, in order: the same data, the same text."""

    def item(self, key: SampleKey) -> Item:
        """The item of a key: each pass over a split is an order of its own, drawn from the key's seed.

        Raises ValueError for an empty split, and beyond the end of the test split, where a row would be counted twice.
        """
        items = self.items.get(key.split, ())
        if not items:
            held = ", ".join(f"{name} {len(rows)}" for name, rows in self.items.items())
            raise ValueError(f"{self.source} has no rows of split {key.split} (rows: {held}).")
        lap, place = divmod(key.index, len(items))
        if key.split == "test" and lap:
            raise ValueError(
                f"{self.source} has {len(items)} test rows, and sample {key.index + 1} of them was asked for. "
                f"Set evaluation.num_samples and evaluation.num_curve_samples (of an export: --num) to at most {len(items)}."
            )
        first = SampleKey(task=key.task, split=key.split, seed=key.seed, index=lap)
        return items[_order(first, len(items))[place]]


def gather(
    rows: Iterable[Row],
    read: Callable[[Record], Item],
    picture: Callable[[Item], bytes],
    *,
    source: str,
    skip: bool,
) -> OfflineTable:
    """Read all rows. A row without a split goes where the hash of its picture and question says, so equal rows lie in one split.

    Raises ValueError for the first bad row, with its place, unless `skip`.
    """
    items: dict[str, list[Item]] = {split: [] for split in SPLITS}
    owners: dict[str, str] = {}
    skipped = []
    whole = hashlib.blake2b(digest_size=8)
    for row in rows:
        try:
            item = read(row.record)
            content = hashlib.blake2b(picture(item) + item.query.encode(), digest_size=16).hexdigest()
            split = row.split or home(content)
            if owners.setdefault(content, split) != split:
                raise ValueError(f"its picture and question stand in split {owners[content]} too.")
        except ValueError as error:
            if not skip:
                raise ValueError(f"{row.where}: {error} Correct the row, or set task.on_error=skip.") from error
            skipped.append(f"{row.where}: {error}")
            continue
        items[split].append(replace(item, content=content))
        whole.update("\x1f".join((content, split, *item.texts)).encode())
    if not owners:
        reason = f" The first of {len(skipped)} that were skipped: {skipped[0]}" if skipped else ""
        raise ValueError(f"{source} has no rows.{reason}")
    return OfflineTable(source=source, items=items, skipped=skipped, fingerprint=whole.hexdigest())


def home(content: str) -> str:
    """The split of a content: what a generated task would keep for its base model is trained on too (70 %, 15 %, 15 %).

    >>> [home(str(number)) for number in range(3)]
    ['test', 'train_sft', 'train_sft']
    """
    split = split_of(content)
    return "train_sft" if split == "base" else split


@lru_cache(maxsize=8)  # Each sample of a pass asks for it.
def _order(key: SampleKey, num: int) -> list[int]:
    return Random(key.entropy("order")).sample(range(num), num)
