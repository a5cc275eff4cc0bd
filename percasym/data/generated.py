"""The micro-batches of supervised training, generated on the fly without a stored state.

Sample i of optimizer step s has index s * batch_size + i and is a pure function of this index and the run's seed, so a resumed run
trains on exactly the same samples. Each rank generates only its own samples, strided by the number of ranks; the ranks share the row
lengths, so that all of them run the same number of forwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from percasym.config.paradigm import rows_per_forward
from percasym.models.base import Batch, Family, Row
from percasym.tasks.base import Task, prompt_as_text
from percasym.types import Prompt, SampleKey

FORWARD_TOKENS = 256
"""Fixed cost of a forward and its backward, in tokens (our choice: 150 measured for the packaged models on a CPU; on a GPU, reading all
weights takes as long as some hundred tokens)."""
ATTENTION_TOKENS = 500
"""The length at which attention takes as long as everything else (500 measured for the packaged models on a CPU; some thousands for a large
model, where rows of a few hundred tokens are split slightly more than necessary, at almost no cost)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The micro-batches of one task, for each optimizer step on one rank."""

    task: Task
    family: Family
    batch_size: int
    """Samples in one optimizer step, over all ranks."""
    micro_batch_size: int
    """Maximum samples in one forward."""
    seed: int
    split: str = "train_sft"
    text_frac: float = 0.0
    """Share of the samples with p* as text in place of the picture."""
    without: Callable[[Prompt], Prompt] | None = None
    """The prompt with a masked picture, for weights of single tokens; None makes no masked pictures."""
    rank: int = 0
    num_ranks: int = 1
    longest: Callable[[list[int]], list[int]] = list
    """Element-wise maximum over ranks (`Ranks.all_reduce_max`); the identity for one rank."""
    ahead: bool = True
    """Prepare micro-batches in a background thread, which hides their cost when the step runs on an accelerator.
    With a step on the CPU the thread slows it down (2 cores: 2.4 s a step instead of 1.8 s)."""

    def __post_init__(self) -> None:
        rows_per_forward(self.batch_size, self.micro_batch_size, self.num_ranks)

    def row(self, index: int) -> Row:
        """The tokens and labels of one sample."""
        key = SampleKey(task=self.task.name, split=self.split, seed=self.seed, index=index)
        sample = self.task.sample(key)
        if key.rng("text").random() < self.text_frac:
            sample = replace(sample, prompt=prompt_as_text(sample))
        row = self.family.row(sample)
        if self.without is None:
            return row
        masked = self.family.row(replace(sample, prompt=self.without(sample.prompt)))
        assert masked.ids == row.ids, "a masked picture has the size of its original, and so as many tokens"
        return replace(row, masked=masked.inputs)

    def window(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step, with rows of similar length together; a collective call.

        Sorting by length reduces padding. It reorders samples only within the step, whose gradient does not depend on their order.
        """
        rows = self._rows(step)
        return self._batches(rows, self._cuts(rows))

    def windows(self, start: int, stop: int) -> Iterator[list[Batch]]:
        """The windows (lists of micro-batches) of steps `start` to `stop` - 1.

        During a step, the thread collates the next window and generates the rows of the one after it. Collective calls are made in the
        caller's thread, so that all ranks make them in the same order.
        """
        if not self.ahead or start == stop:
            yield from map(self.window, range(start, stop))
            return
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="data") as worker:

            def collate(rows: list[Row]) -> Future[list[Batch]]:
                return worker.submit(self._batches, rows, self._cuts(rows))

            pending = deque(worker.submit(self._rows, step) for step in range(start, min(start + 2, stop)))
            window = collate(pending.popleft().result())
            for step in range(start, stop):
                ready = window.result()
                if pending:
                    window = collate(pending.popleft().result())
                if step + 2 < stop:
                    pending.append(worker.submit(self._rows, step + 2))
                yield ready

    def _rows(self, step: int) -> list[Row]:
        first = step * self.batch_size
        own = range(first + self.rank, first + self.batch_size, self.num_ranks)
        return sorted(map(self.row, own), key=lambda row: len(row.ids))

    def _cuts(self, rows: Sequence[Row]) -> list[slice]:
        """Partition by the longest row over ranks at each position, so that all ranks run as many forwards, as ZeRO requires."""
        most = rows_per_forward(self.batch_size, self.micro_batch_size, self.num_ranks)
        return buckets(self.longest([len(row.ids) for row in rows]), most)

    def _batches(self, rows: Sequence[Row], cuts: Sequence[slice]) -> list[Batch]:
        return [self._batch(rows[cut]) for cut in cuts]

    def _batch(self, rows: Sequence[Row]) -> Batch:
        batch = self.family.collate(rows)
        if self.without is None:
            return batch
        return replace(batch, masked=self.family.collate([replace(row, inputs=row.masked) for row in rows]).inputs)


def buckets(lengths: Sequence[int], most: int, overhead: int = FORWARD_TOKENS, attention: int = ATTENTION_TOKENS) -> list[slice]:
    """Partition rows of ascending lengths into micro-batches of at most `most` rows with the least total cost.

    A micro-batch costs overhead + rows * longest * (1 + longest / attention), in tokens. The optimum is found by dynamic programming in
    n * `most` steps. The gradient of a step does not depend on the partition, because each token is weighted by the counts of the step.

    >>> buckets([10, 11, 90], most=3, overhead=20), buckets([10, 11, 90], most=3, overhead=1000)
    ([slice(0, 2, None), slice(2, 3, None)], [slice(0, 3, None)])
    """
    costs, starts = [0.0], [0]  # For the first n rows: least cost, and start of the last micro-batch.
    for stop in range(1, len(lengths) + 1):
        row = lengths[stop - 1] * (1 + lengths[stop - 1] / attention)
        cost, start = min((costs[start] + overhead + (stop - start) * row, start) for start in range(max(0, stop - most), stop))
        costs.append(cost)
        starts.append(start)
    cuts, stop = list[slice](), len(lengths)
    while stop:
        cuts.append(slice(starts[stop], stop))
        stop = starts[stop]
    return cuts[::-1]
