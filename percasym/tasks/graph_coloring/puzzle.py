"""Generate connected graphs with a given number of nodes, number of edges and chromatic number.

The three numbers are drawn first, each uniformly over the values that the others allow; then a graph with exactly these is searched.
Unlike rejection sampling of uniform random graphs, this does not make rare chromatic numbers rarer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from percasym.tasks.base import draw_until_in_split
from percasym.tasks.graph_coloring.graph import LETTERS, Graph, all_pairs, chromatic_number, graph_of
from percasym.tasks.graph_coloring.search import needs_at_most
from percasym.types import SampleKey

FEWEST_NODES, MOST_NODES = 4, len(LETTERS)

MAX_TRIES = 200
"""Bound on the tries for one graph. Measured: half take one try, none more than one after planting unless `max_steps` is tight."""

MAX_FREE_TRIES = 20
"""Tries before a clique of all colours is planted, which guarantees the chromatic number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The numbers that are drawn before the edges."""

    num_nodes: int
    num_colors: int
    """The chromatic number."""
    num_edges: range
    """The possible numbers of edges."""


def edge_range(num_nodes: int, num_colors: int) -> range:
    """The numbers of edges that a connected graph with this chromatic number can have.

    Lower bound: a clique of k nodes and one edge for each other node. Upper bound: the complete k-partite graph with balanced parts,
    by Turan. Each number between is reached by adding edges of the second to the first.

    >>> edge_range(5, 3)
    range(5, 9)
    """
    fewest = num_colors * (num_colors - 1) // 2 + num_nodes - num_colors
    parts = [len(range(part, num_nodes, num_colors)) for part in range(num_colors)]
    most = (num_nodes**2 - sum(size**2 for size in parts)) // 2
    return range(fewest, most + 1)


@lru_cache
def kinds_of(num_nodes: int, density: tuple[float, float], chromatic: tuple[int, int]) -> tuple[Kind, ...]:
    """The possible chromatic numbers in `chromatic`, each with the numbers of edges that `density` allows."""
    pairs = num_nodes * (num_nodes - 1) // 2
    fewest, most = math.ceil(density[0] * pairs - 1e-9), math.floor(density[1] * pairs + 1e-9)  # Tolerance for 0.7 * 10 in floating point.
    kinds = []
    for num_colors in range(chromatic[0], min(chromatic[1], num_nodes) + 1):
        possible = edge_range(num_nodes, num_colors)
        if num_edges := range(max(fewest, possible.start), min(most + 1, possible.stop)):
            kinds.append(Kind(num_nodes=num_nodes, num_colors=num_colors, num_edges=num_edges))
    return tuple(kinds)


def fewest_steps(num_nodes: int, num_colors: int) -> int:
    """Lower bound on the paints of a search: j to refute j < k colours on a clique, then one for each node."""
    return sum(range(2, num_colors)) + num_nodes


def draw_graph(
    key: SampleKey, *, nodes: tuple[int, int], density: tuple[float, float], chromatic: tuple[int, int], max_steps: int
) -> Graph:
    """The graph of a key: connected, within the ranges, and in the key's split."""
    rng = key.rng("puzzle")

    def propose(_: int) -> Graph:
        kind = rng.choice(kinds_of(rng.randint(*nodes), density, chromatic))
        return graph_of_kind(kind, rng.choice(kind.num_edges), max_steps, rng)

    return draw_until_in_split(key, propose, str)


def graph_of_kind(kind: Kind, num_edges: int, max_steps: int, rng: Random) -> Graph:
    """A random connected graph of this kind whose search paints at most `max_steps` times.

    Raises ValueError when none is found.
    """
    for attempt in range(MAX_TRIES):
        graph = _multipartite(kind, num_edges, planted=attempt >= MAX_FREE_TRIES, rng=rng)
        if graph and chromatic_number(graph) == kind.num_colors and needs_at_most(graph, max_steps):
            return graph
    raise ValueError(
        f"No graph with {kind.num_nodes} nodes, {num_edges} edges and chromatic number {kind.num_colors} was found whose "
        f"search takes at most task.max_steps={max_steps} steps ({MAX_TRIES} tries). Raise task.max_steps."
    )


def _multipartite(kind: Kind, num_edges: int, *, planted: bool, rng: Random) -> Graph | None:
    """A random connected graph that respects a random colouring; None when that colouring allows too few edges.

    `planted` adds a clique with one node of each colour, and balances the parts so that the edges always fit.
    """
    colors = [node % kind.num_colors for node in range(kind.num_nodes)]
    if not planted:
        colors[kind.num_colors :] = rng.choices(range(kind.num_colors), k=kind.num_nodes - kind.num_colors)
    labels = rng.sample(range(kind.num_nodes), kind.num_nodes)
    color = dict(zip(labels, colors, strict=True))
    pairs = [pair for pair in all_pairs(kind.num_nodes) if color[pair[0]] != color[pair[1]]]
    if len(pairs) < num_edges:
        return None
    rng.shuffle(pairs)
    clique = set(labels[: kind.num_colors]) if planted else set()
    pairs.sort(key=lambda pair: not clique.issuperset(pair))  # Stable: the clique first, the rest as shuffled.
    tree = _spanning_tree(kind.num_nodes, pairs)
    return graph_of(kind.num_nodes, [*tree, *(pair for pair in pairs if pair not in tree)][:num_edges])


def _spanning_tree(num_nodes: int, pairs: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """The spanning tree of the first edges in the given order (Kruskal)."""
    component = list(range(num_nodes))
    tree = set()
    for i, j in pairs:
        if component[i] != component[j]:
            tree.add((i, j))
            component = [component[i] if other == component[j] else other for other in component]
    return tree
