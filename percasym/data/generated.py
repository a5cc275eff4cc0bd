"""Training samples that are made, not read: a stream without state.

Sample i of optimizer step s has index s * batch_size + i, and a sample is a pure function of its index and
the run's seed; so a resumed run sees exactly the samples that it would have seen, and nothing is stored.
Each rank makes every so-many-th sample of a step, and no other; of the others' it hears the lengths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from percasym.config.paradigm import rows_per_forward
from percasym.data.buckets import buckets
from percasym.models.base import Batch, Family, Row
from percasym.tasks.base import Task, prompt_as_text
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
    text_frac: float = 0.0
    """Share of the samples that give p* as text in place of the picture."""
    rank: int = 0
    num_ranks: int = 1
    longest: Callable[[list[int]], list[int]] = list
    """The greatest over ranks of each number that all of them give (`Ranks.all_reduce_max`); alone, one's own."""
    ahead: bool = True
    """Make windows in a thread while others are at work, which hides the making behind an accelerator.
    Beside a step on the CPU, a thread takes more than it gives (2 cores: 2.4 s a step, not 1.8 s)."""

    def __post_init__(self) -> None:
        rows_per_forward(self.batch_size, self.micro_batch_size, self.num_ranks)

    def row(self, index: int) -> Row:
        """The tokens and labels of one sample."""
        key = SampleKey(task=self.task.name, split=self.split, seed=self.seed, index=index)
        sample = self.task.sample(key)
        if key.rng("text").random() < self.text_frac:
            sample = replace(sample, prompt=prompt_as_text(sample))
        return self.family.row(sample)

    def window(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step, rows of like length together; every rank asks for it.

        Sorting cuts padding and moves samples only within the rank's share of the step, whose gradient does not depend on their order.
        """
        rows = self._rows(step)
        return self._batches(rows, self._cuts(rows))

    def windows(self, start: int, stop: int) -> Iterator[list[Batch]]:
        """The windows of steps `start` to `stop` - 1.

        While one is at work, the thread makes the next one's batches and the rows of that after it; ranks talk in the caller's thread,
        between the two, so that nothing else they say comes in between.
        """
        if not self.ahead or start == stop:
            yield from map(self.window, range(start, stop))
            return
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="data") as maker:

            def cut(rows: list[Row]) -> Future[list[Batch]]:
                return maker.submit(self._batches, rows, self._cuts(rows))

            made = deque(maker.submit(self._rows, step) for step in range(start, min(start + 2, stop)))
            window = cut(made.popleft().result())
            for step in range(start, stop):
                ready = window.result()
                if made:
                    window = cut(made.popleft().result())
                if step + 2 < stop:
                    made.append(maker.submit(self._rows, step + 2))
                yield ready

    def _rows(self, step: int) -> list[Row]:
        first = step * self.batch_size
        own = range(first + self.rank, first + self.batch_size, self.num_ranks)
        return sorted(map(self.row, own), key=lambda row: len(row.ids))

    def _cuts(self, rows: Sequence[Row]) -> list[slice]:
        """All ranks cut where the longest row at each place says, so every rank makes as many forwards: ZeRO waits for it."""
        most = rows_per_forward(self.batch_size, self.micro_batch_size, self.num_ranks)
        return buckets(self.longest([len(row.ids) for row in rows]), most)

    def _batches(self, rows: Sequence[Row], cuts: Sequence[slice]) -> list[Batch]:
        return [self.family.collate(rows[cut]) for cut in cuts]
