"""Where to cut sorted rows into forwards, so that little is computed on padding.

A forward costs its padded tokens and something of its own; the cheapest cuts of n sorted rows are found exactly, in n times
`most` steps. The gradient of a step does not depend on them: every token carries its share of the whole step.
"""

from __future__ import annotations

from collections.abc import Sequence

FORWARD_TOKENS = 256
"""What a forward and its backward cost beside their tokens, in tokens (our choice: 150 measured for the packaged models on a CPU;
on a GPU reading all weights lasts as long as some hundred tokens)."""


def buckets(lengths: Sequence[int], most: int, overhead: int = FORWARD_TOKENS) -> list[slice]:
    """Cut rows of these ascending lengths into runs of at most `most`, the sum of (overhead + rows * longest) least.

    >>> buckets([10, 11, 90], most=3, overhead=20), buckets([10, 11, 90], most=3, overhead=1000)
    ([slice(0, 2, None), slice(2, 3, None)], [slice(0, 3, None)])
    """
    costs, starts = [0], [0]  # Of the first n rows: their least cost, and where their last run starts.
    for stop in range(1, len(lengths) + 1):
        options = ((costs[start] + overhead + (stop - start) * lengths[stop - 1], start) for start in range(max(0, stop - most), stop))
        cost, start = min(options)
        costs.append(cost)
        starts.append(start)
    cuts, stop = list[slice](), len(lengths)
    while stop:
        cuts.append(slice(starts[stop], stop))
        stop = starts[stop]
    return cuts[::-1]
