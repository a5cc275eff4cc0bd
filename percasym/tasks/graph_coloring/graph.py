"""A labelled graph, its text form, and exact algorithms for its colourings.

Nodes are numbered from 0 and written as letters; a set of nodes is a bit mask. Graphs have at most 15 nodes, so every result is exact,
without bounds, heuristics or time limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, count

LETTERS = "ABCDEFGHIJKLMNO"

MAX_CHARS = len("15:") + len(" AB") * 105
"""Length of the longest percept, the complete graph; longer texts are rejected before they can fill the cache."""

_PERCEPT = re.compile(r"([1-9][0-9]?):((?: [A-O][A-O])*)")
_ANSWER = re.compile(r"[A-O][1-9][0-9]*(?:\s+[A-O][1-9][0-9]*)*")

Coloring = tuple[int, ...]
"""The colour of each node, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """An undirected graph without loops."""

    num_nodes: int
    edges: tuple[tuple[int, int], ...]
    """Sorted pairs (i, j) with i < j."""

    def __str__(self) -> str:
        """The canonical percept p*.

        >>> str(Graph(num_nodes=4, edges=((0, 1), (1, 3), (2, 3))))
        '4: AB BD CD'
        """
        return " ".join([f"{self.num_nodes}:", *(LETTERS[i] + LETTERS[j] for i, j in self.edges)])


def graph_of(num_nodes: int, pairs: Iterable[tuple[int, int]]) -> Graph:
    """The graph of these edges, in any order."""
    return Graph(num_nodes=num_nodes, edges=tuple(sorted(pairs)))


def read_graph(text: str) -> Graph | None:
    """Parse a text of the form `N: XY XY ...`; None for any other text.

    N is at most 15; each edge is two different letters of the first N in alphabetical order, without duplicates. Edges may come in any
    order; white space around the text is ignored, inside it only single spaces are allowed.

    >>> str(read_graph(" 4: CD AB BD"))
    '4: AB BD CD'
    >>> read_graph("4: AB BA") is None and read_graph("4: AB AB") is None and read_graph("4: AE") is None
    True
    """
    stripped = text.strip()
    return _read(stripped) if len(stripped) <= MAX_CHARS else None


@lru_cache(maxsize=4096)
def _read(text: str) -> Graph | None:
    match = _PERCEPT.fullmatch(text)
    if not match or int(match[1]) > len(LETTERS):
        return None
    num_nodes = int(match[1])
    pairs = [(LETTERS.index(edge[0]), LETTERS.index(edge[1])) for edge in match[2].split()]
    if len(set(pairs)) < len(pairs) or any(not i < j < num_nodes for i, j in pairs):
        return None
    return graph_of(num_nodes, pairs)


def write_answer(coloring: Coloring) -> str:
    """The answer text of a colouring.

    >>> write_answer((1, 2, 1, 3))
    'A1 B2 C1 D3'
    """
    return " ".join(f"{letter}{color}" for letter, color in zip(LETTERS, coloring, strict=False))


def is_optimal(graph: Graph, answer: str) -> bool:
    """Whether `answer` is a proper colouring with the chromatic number of colours.

    Every node must be coloured exactly once, in any order; a colour is any positive integer, because only equality matters.

    >>> path = Graph(num_nodes=3, edges=((0, 1), (1, 2)))
    >>> is_optimal(path, "B1 A7 C7"), is_optimal(path, "A1 B2 C3"), is_optimal(path, "A1 B2")
    (True, False, False)
    """
    if not _ANSWER.fullmatch(answer.strip()):
        return False
    entries = [(LETTERS.index(word[0]), word[1:]) for word in answer.split()]
    colors = dict(entries)
    if len(entries) != graph.num_nodes or colors.keys() != set(range(graph.num_nodes)):
        return False
    proper = all(colors[i] != colors[j] for i, j in graph.edges)
    return proper and len(set(colors.values())) == chromatic_number(graph)


@lru_cache(maxsize=4096)
def neighbors(graph: Graph) -> tuple[int, ...]:
    """The neighbours of each node, as bit masks."""
    near = [0] * graph.num_nodes
    for i, j in graph.edges:
        near[i] |= 1 << j
        near[j] |= 1 << i
    return tuple(near)


def nodes_in(mask: int) -> list[int]:
    """The nodes of a set, in alphabetical order.

    >>> nodes_in(0b10110)
    [1, 2, 4]
    """
    return [node for node in range(mask.bit_length()) if mask >> node & 1]


def is_connected(graph: Graph) -> bool:
    """Whether every node is reachable from A."""
    near, reached, frontier = neighbors(graph), 1, 1
    while frontier:
        frontier = _union(near, frontier) & ~reached
        reached |= frontier
    return reached == (1 << graph.num_nodes) - 1


def chromatic_number(graph: Graph) -> int:
    """The least number of colours of a proper colouring."""
    return max(optimal_coloring(graph))


@lru_cache(maxsize=1 << 15)
def optimal_coloring(graph: Graph) -> Coloring:
    """A proper colouring with the fewest colours, found by exhausting every smaller number of colours.

    >>> optimal_coloring(Graph(num_nodes=3, edges=((0, 1), (1, 2))))
    (2, 1, 2)
    """
    near, all_nodes = neighbors(graph), (1 << graph.num_nodes) - 1
    classes = next(found for limit in count(1) if (found := _extend(near, limit, (), all_nodes)))
    return tuple(next(color for color, members in enumerate(classes, 1) if members >> node & 1) for node in range(graph.num_nodes))


def largest_clique(graph: Graph) -> tuple[int, ...]:
    """A largest clique; the alphabetically first one.

    >>> largest_clique(Graph(num_nodes=4, edges=((0, 1), (1, 2), (1, 3), (2, 3))))
    (1, 2, 3)
    """
    return _grow(neighbors(graph), (), (1 << graph.num_nodes) - 1, ())


def _union(near: tuple[int, ...], mask: int) -> int:
    reached = 0
    for node in nodes_in(mask):
        reached |= near[node]
    return reached


def _extend(near: tuple[int, ...], limit: int, classes: tuple[int, ...], left: int) -> tuple[int, ...] | None:
    """Complete a partial colouring within `limit` colours, branching on the node with the fewest choices (DSATUR)."""
    if not left:
        return classes
    node = max(nodes_in(left), key=lambda v: (sum(near[v] & members > 0 for members in classes), (near[v] & left).bit_count()))
    for color, members in enumerate(classes):
        if not near[node] & members:
            joined = (*classes[:color], members | 1 << node, *classes[color + 1 :])
            if found := _extend(near, limit, joined, left & ~(1 << node)):
                return found
    if len(classes) < limit:  # Unused colours are interchangeable, so one is enough.
        return _extend(near, limit, (*classes, 1 << node), left & ~(1 << node))
    return None


def _grow(near: tuple[int, ...], clique: tuple[int, ...], candidates: int, best: tuple[int, ...]) -> tuple[int, ...]:
    if len(clique) > len(best):
        best = clique
    while len(clique) + candidates.bit_count() > len(best):
        node = nodes_in(candidates)[0]
        candidates &= ~(1 << node)
        best = _grow(near, (*clique, node), candidates & near[node], best)
    return best


def all_pairs(num_nodes: int) -> list[tuple[int, int]]:
    """All possible edges, in alphabetical order."""
    return list(combinations(range(num_nodes), 2))
