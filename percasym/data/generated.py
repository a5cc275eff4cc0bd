"""Training samples that are made, not read: a stream without state.

Sample i of optimizer step s has index s * batch_size + i, and a sample is a pure function of its index and
the run's seed; so a resumed run sees exactly the samples that it would have seen, and nothing is stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from percasym.models.base import Batch, Family, Row
from percasym.tasks.base import Task
from percasym.types import SampleKey

STEPS_AHEAD = 2  # One window in the making while one is ready: making is the faster side, so more would only hold memory.


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The samples of one task, as the micro-batches of each optimizer step."""

    task: Task
    family: Family
    batch_size: int
    """Samples in one optimizer step."""
    micro_batch_size: int
    """Samples in one micro-batch; it divides `batch_size`."""
    seed: int
    split: str = "train_sft"

    def row(self, index: int) -> Row:
        """The tokens and labels of one sample."""
        key = SampleKey(task=self.task.name, split=self.split, seed=self.seed, index=index)
        return self.family.row(self.task.sample(key))

    def window(self, step: int) -> list[Batch]:
        """The micro-batches of a step, rows of like length together.

        Sorting cuts padding and moves samples only within the step, whose gradient does not depend on their order.
        """
        first = step * self.batch_size
        rows = sorted((self.row(index) for index in range(first, first + self.batch_size)), key=lambda row: len(row.ids))
        return [self.family.collate(rows[at : at + self.micro_batch_size]) for at in range(0, self.batch_size, self.micro_batch_size)]

    def windows(self, start: int, stop: int) -> Iterator[list[Batch]]:
        """The windows of steps `start` to `stop` - 1, made ahead in a background thread."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="data") as maker:
            coming = deque(maker.submit(self.window, step) for step in range(start, min(start + STEPS_AHEAD, stop)))
            for step in range(start, stop):
                ready = coming.popleft().result()
                if step + STEPS_AHEAD < stop:
                    coming.append(maker.submit(self.window, step + STEPS_AHEAD))
                yield ready
