"""Where to cut sorted rows into forwards, so that little is computed on padding.

A forward costs its padded tokens, attention among them, and something of its own; the cheapest cuts of n sorted rows are found exactly,
in n times `most` steps. The gradient of a step does not depend on them: every token carries its share of the whole step.
"""

from __future__ import annotations

from collections.abc import Sequence

FORWARD_TOKENS = 256
"""What a forward and its backward cost beside their tokens, in tokens (our choice: 150 measured for the packaged models on a CPU;
on a GPU reading all weights lasts as long as some hundred tokens)."""


ATTENTION_TOKENS = 500
"""The length at which attention takes as long as all else (500 measured for the packaged models on a CPU; in a large model some thousands,
where rows of a few hundred tokens are cut a little finer than need be, which costs next to nothing)."""


def buckets(lengths: Sequence[int], most: int, overhead: int = FORWARD_TOKENS, attention: int = ATTENTION_TOKENS) -> list[slice]:
    """Cut rows of these ascending lengths into runs of at most `most`, so that the sum of their costs is least.

    A run costs overhead + rows * longest * (1 + longest / attention), in tokens.

    >>> buckets([10, 11, 90], most=3, overhead=20), buckets([10, 11, 90], most=3, overhead=1000)
    ([slice(0, 2, None), slice(2, 3, None)], [slice(0, 3, None)])
    """
    costs, starts = [0.0], [0]  # Of the first n rows: their least cost, and where their last run starts.
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
