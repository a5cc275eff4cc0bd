"""Training samples that are made, not read: a stream without state.

Sample i of optimizer step s has index s * batch_size + i, and a sample is a pure function of its index and
the run's seed; so a resumed run sees exactly the samples that it would have seen, and nothing is stored.
Ranks share a step without talking: each makes its samples, sorts them, and takes every so-many-th.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from percasym.data.buckets import buckets
from percasym.models.base import Batch, Family, Row
from percasym.paradigm import rows_per_forward
from percasym.tasks.base import Task
from percasym.types import SampleKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The samples of one task, as the micro-batches of each optimizer step on one rank."""

    task: Task
    family: Family
    batch_size: int
    """Samples in one optimizer step, over all ranks."""
    micro_batch_size: int
    """Samples in one forward, at most."""
    seed: int
    split: str = "train_sft"
    rank: int = 0
    num_ranks: int = 1
    steps_ahead: int = 2
    """Windows made ahead in a thread: one in the making while one is ready hides the making behind an accelerator's work.
    0 makes each when it is asked for: beside a step on the CPU, a thread takes more than it gives (2 cores: 2.4 s a step, not 1.8 s)."""

    def __post_init__(self) -> None:
        rows_per_forward(self.batch_size, self.micro_batch_size, self.num_ranks)

    def row(self, index: int) -> Row:
        """The tokens and labels of one sample."""
        key = SampleKey(task=self.task.name, split=self.split, seed=self.seed, index=index)
        return self.family.row(self.task.sample(key))

    def window(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step, rows of like length together.

        Sorting cuts padding and moves samples only within the step, whose gradient does not depend on their order;
        dealing the sorted rows out in turn gives all ranks like work. All cut where the longest rows dealt at each turn
        say, so every rank makes as many forwards: ZeRO waits for it.
        """
        first = step * self.batch_size
        rows = sorted((self.row(index) for index in range(first, first + self.batch_size)), key=lambda row: len(row.ids))
        own, longest = rows[self.rank :: self.num_ranks], rows[self.num_ranks - 1 :: self.num_ranks]
        most = rows_per_forward(self.batch_size, self.micro_batch_size, self.num_ranks)
        return [self.family.collate(own[cut]) for cut in buckets([len(row.ids) for row in longest], most)]

    def windows(self, start: int, stop: int) -> Iterator[list[Batch]]:
        """The windows of steps `start` to `stop` - 1, `steps_ahead` of them made in a background thread."""
        if self.steps_ahead == 0:
            yield from map(self.window, range(start, stop))
            return
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="data") as maker:
            coming = deque(maker.submit(self.window, step) for step in range(start, min(start + self.steps_ahead, stop)))
            for step in range(start, stop):
                ready = coming.popleft().result()
                if step + self.steps_ahead < stop:
                    coming.append(maker.submit(self.window, step + self.steps_ahead))
                yield ready
