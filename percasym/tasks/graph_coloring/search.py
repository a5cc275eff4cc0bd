"""A backtracking graph colouring search as a sequence of typed steps, from which demonstrations are written.

Attempts with 2, 3, ... colours follow each other until one succeeds; a failed attempt has exhausted all colourings, so the failures prove
that the answer is optimal. Unlike `graph.optimal_coloring`, the order of the nodes is fixed before the search, so that each step depends
on the preceding steps only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from random import Random

from percasym.tasks.graph_coloring.graph import Coloring, Graph, largest_clique, neighbors, nodes_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Start a search with this many colours."""

    num_colors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """A colour tried without checking the neighbours, found on one of them, and undone."""

    color: int
    neighbor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Check the neighbours of the next node."""

    node: int
    slip: Slip | None
    neighbors: tuple[tuple[int, int | None], ...]
    """Each neighbour with its colour, None if it has none."""
    options: tuple[int, ...]
    """Colours that no neighbour has, among those in use and the least unused one: unused colours are interchangeable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paint:
    """Give the node its least untried option."""

    node: int
    color: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """Undo the last painted colour."""

    node: int
    left: tuple[int, ...]
    """Its untried options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """All options are exhausted: the graph has no colouring with this many colours."""

    num_colors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """Every node has a colour."""

    coloring: Coloring


Step = Attempt | Visit | Paint | Undo | Failure | Success


def visiting_order(graph: Graph) -> tuple[int, ...]:
    """A largest clique, then repeatedly the node with most neighbours in the order so far (ties: alphabetical).

    A clique of q nodes refutes q - 1 colours without branching.
    """
    near, order = neighbors(graph), list(largest_clique(graph))
    placed = sum(1 << node for node in order)
    while len(order) < graph.num_nodes:
        rest = [node for node in range(graph.num_nodes) if not placed >> node & 1]
        order.append(max(rest, key=lambda node: (near[node] & placed).bit_count()))
        placed |= 1 << order[-1]
    return tuple(order)


def search(graph: Graph, rng: Random, reflect_frac: float) -> Iterator[Step]:
    """The steps from two colours up to the first success, for a graph with at least one edge.

    The share `reflect_frac` of the visits with a coloured neighbour begin with a slip; nothing else is random.
    """
    order = visiting_order(graph)
    for num_colors in count(2):
        yield Attempt(num_colors=num_colors)
        for step in _attempt(graph, order, num_colors, rng, reflect_frac):
            yield step
            if isinstance(step, Success):
                return


def found(steps: Sequence[Step]) -> Coloring:
    """The colouring at the end of a complete search."""
    last = steps[-1]
    assert isinstance(last, Success), f"the search stopped at {last}"
    return last.coloring


@lru_cache(maxsize=1 << 15)
def needs_at_most(graph: Graph, max_steps: int) -> bool:
    """Whether the search paints at most `max_steps` times over all attempts; it is run no further than that."""
    paints = (step for step in search(graph, Random(0), 0.0) if isinstance(step, Paint))
    return next(islice(paints, max_steps, None), None) is None


def _attempt(graph: Graph, order: tuple[int, ...], num_colors: int, rng: Random, reflect_frac: float) -> Iterator[Step]:
    near = neighbors(graph)
    colors: dict[int, int] = {}
    untried: list[list[int]] = []  # Untried options of each painted node, in the order of painting.
    while len(colors) < graph.num_nodes:
        visit = _visit(order[len(colors)], nodes_in(near[order[len(colors)]]), colors, num_colors, rng, reflect_frac)
        yield visit
        untried.append(list(visit.options))
        while not untried[-1]:
            untried.pop()
            if not untried:
                yield Failure(num_colors=num_colors)
                return
            node, _ = colors.popitem()
            yield Undo(node=node, left=tuple(untried[-1]))
        node = order[len(colors)]
        colors[node] = untried[-1].pop(0)
        yield Paint(node=node, color=colors[node])
    yield Success(coloring=tuple(colors[node] for node in range(graph.num_nodes)))


def _visit(node: int, near: list[int], colors: dict[int, int], num_colors: int, rng: Random, reflect_frac: float) -> Visit:
    holders: dict[int, int] = {}
    for neighbor in near:
        if neighbor in colors:
            holders.setdefault(colors[neighbor], neighbor)
    slip = None
    if holders and rng.random() < reflect_frac:
        color = rng.choice(sorted(holders))
        slip = Slip(color=color, neighbor=holders[color])
    least_unused = max(colors.values(), default=0) + 1  # Painting the least option never leaves a gap below the largest colour.
    return Visit(
        node=node,
        slip=slip,
        neighbors=tuple((neighbor, colors.get(neighbor)) for neighbor in near),
        options=tuple(color for color in range(1, min(num_colors, least_unused) + 1) if color not in holders),
    )
