"""Graphs as adjacency lists and six questions about them, graded by rule: the graph items of MM-HELIX.

The canonical percept has one line for each node: "0: 1 2", where an edge stands in the lines of both of its nodes, or "0 -> 1 2" of a
directed graph. Any right answer counts. "No" is right exactly where no walk exists, which is decided by search, so an answer can also be
checked against a misread graph.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

from percasym.tasks.released.graphs import order

Graph = Mapping[str, tuple[str, ...]]
"""The neighbours of each node; of a directed graph, those that its edges lead to."""

NAME = r"[A-Za-z0-9]{1,8}"
LINE = re.compile(rf"\s*(?:[-*]\s+)?(?:[Nn]ode\s+)?[\"']?({NAME})[\"']?\s*(:|->|→)\s*([\[(]?)([^\[\]()]*)([\])]?)[,;.]?\s*")
NEIGHBOUR = re.compile(rf"[\"']?({NAME})[\"']?")
WALK = re.compile(rf"[\[(]*\s*{NAME}(?:\s*(?:,|->|→|-)\s*{NAME}|\s+{NAME})*\s*[\])]*")
NO = re.compile(r"[\"']?no[\"']?\.?", re.IGNORECASE)
BOXED = re.compile(r"\$*\\boxed\{(.*)\}\$*", re.DOTALL)
LONGEST = 8192
"""Characters of a stated graph or answer; 64 nodes with 10 neighbours each have 2,500."""
MOST_NODES = 64
"""Of a graph that is read; the items of MM-HELIX have up to 16."""
MOST_STATES = 200_000
"""Partial walks of a search for a Hamiltonian path, 0.3 seconds; graphs of 16 nodes need fewer than a tenth."""


class UndecidedError(ValueError):
    """The search for a walk reached its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The nodes that a question names."""

    start: str | None = None
    target: str | None = None


Walk = tuple[str, ...] | None
"""An answer: the nodes of a walk, or None for "No"."""


class Question(Protocol):
    """Whether a walk answers a question about a graph."""

    def __call__(self, graph: Graph, walk: Walk, ends: Ends) -> bool:
        """Raises UndecidedError where that was not decided."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRule:
    """How a graph and an answer to its question are read and graded."""

    question: Question
    directed: bool = False
    form: str = "the graph as you read it, one line for each node with its neighbours, as 0: 1 2"

    def parse(self, text: str) -> str | None:
        """The canonical percept of a text that states an adjacency list and nothing else."""
        if len(text) > LONGEST:
            return None
        text = re.sub(r"\A\s*```[A-Za-z]*\s*\n|\n\s*```\s*\Z", "", text).strip()
        near = _of_literal(text) if text.startswith("{") and not self.directed else _of_lines(text, self.directed)
        return None if near is None else self.canonical(near)

    def canonical(self, near: Mapping[str, Sequence[str]]) -> str | None:
        """The canonical percept of an adjacency list; None for a loop, no node or too many."""
        sets: dict[str, set[str]] = {node: set() for node in near}
        for node, others in near.items():
            for other in others:
                sets[node].add(other)
                sets.setdefault(other, set())
                if not self.directed:
                    sets[other].add(node)
        if not 0 < len(sets) <= MOST_NODES or any(node in others for node, others in sets.items()):
            return None
        graph = {node: tuple(sorted(sets[node], key=order)) for node in sorted(sets, key=order)}
        return to_text(graph, directed=self.directed)

    def agreement(self, truth: str, stated: str) -> float:
        """F1 of the edges, times the smaller number of nodes over the larger."""
        one, other = from_text(truth), from_text(stated)
        edges, found = _edges(one), _edges(other)
        few, many = sorted((len(one), len(other)))
        total = len(edges) + len(found)
        return (2 * len(edges & found) / total if total else 1.0) * few / many

    def right(self, percept: str, answer: str, ends: Ends) -> bool:
        """Whether `answer` is right for the canonical graph `percept`; False where that cannot be decided."""
        try:
            return self.decided(percept, answer, ends)
        except UndecidedError:
            return False

    def decided(self, percept: str, answer: str, ends: Ends) -> bool:
        """As `right`. Raises UndecidedError where it cannot be decided."""
        text = unboxed(answer)
        if len(text) > LONGEST:
            return False
        graph = from_text(percept)
        if NO.fullmatch(text):
            return self.question(graph, None, ends)
        if not WALK.fullmatch(text):
            return False
        walk = tuple(re.findall(NAME, text))
        return self.question(graph, walk, ends)


def to_text(graph: Graph, *, directed: bool = False) -> str:
    """The canonical text.

    >>> to_text({"0": ("1", "2"), "1": ("0",), "2": ("0",), "3": ()}).splitlines()
    ['0: 1 2', '1: 0', '2: 0', '3:']
    """
    arrow = " ->" if directed else ":"
    return "\n".join(f"{node}{arrow} {' '.join(near)}".rstrip() for node, near in graph.items())


@lru_cache(maxsize=256)
def from_text(percept: str) -> Graph:
    """The graph of a canonical text."""
    lines = (line.partition(" ->" if " ->" in line else ":") for line in percept.splitlines())
    return {node: tuple(near.split()) for node, _, near in lines}


def unboxed(answer: str) -> str:
    r"""The answer without a LaTeX box around it.

    >>> unboxed("\\boxed{[0, 1]} ")
    '[0, 1]'
    """
    text = answer.strip()
    boxed = BOXED.fullmatch(text)
    return boxed[1].strip() if boxed else text


def literal(text: str) -> object:
    """The value of a JSON or Python literal; None for any other text."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return None


def adjacency(value: object) -> dict[str, list[str]] | None:
    """{node: [neighbours]} with names as text; None for any other value."""
    if not isinstance(value, Mapping) or not all(isinstance(near, list | tuple | set) for near in value.values()):
        return None
    named = {str(node): [str(other) for other in near] for node, near in value.items()}
    names = [*named, *(other for near in named.values() for other in near)]
    return named if all(re.fullmatch(NAME, name) for name in names) else None


def _of_literal(text: str) -> dict[str, list[str]] | None:
    return adjacency(literal(text))


def _of_lines(text: str, directed: bool) -> dict[str, list[str]] | None:
    near: dict[str, list[str]] = {}
    for line in filter(str.strip, text.splitlines()):
        match = LINE.fullmatch(line)
        if match is None or (match[2] != ":") != directed or bool(match[3]) != bool(match[5]) or match[1] in near:
            return None
        others = [other for other in re.split(r"[,\s]+", match[4].strip()) if other]
        names = [NEIGHBOUR.fullmatch(other) for other in others]
        if not all(names):
            return None
        near[match[1]] = [name[1] for name in names if name]
    return near


def _edges(graph: Graph) -> set[tuple[str, str]]:
    return {(node, other) for node, near in graph.items() for other in near}


def _joined(graph: Graph, walk: Sequence[str]) -> bool:
    """Whether each step of the walk follows an edge."""
    return all(node in graph for node in walk) and all(b in graph[a] for a, b in pairwise(walk))


def hamiltonian_path(graph: Graph, walk: Walk, ends: Ends) -> bool:
    """A path that visits each node once, from the named start if there is one; "No" where there is none."""
    if walk is None:
        starts = graph if ends.start is None else [ends.start]
        return not any(_visits_all(graph, start, closed=False) for start in starts)
    begins = ends.start is None or walk[0] == ends.start
    return begins and len(walk) == len(graph) == len(set(walk)) and _joined(graph, walk)


def hamiltonian_cycle(graph: Graph, walk: Walk, ends: Ends) -> bool:
    """A cycle that visits each node once, with or without its first node at the end; "No" where there is none."""
    if walk is None:
        return len(graph) < 3 or not _visits_all(graph, next(iter(graph)), closed=True)
    nodes = walk[:-1] if walk[0] == walk[-1] else walk
    return 3 <= len(nodes) == len(graph) == len(set(nodes)) and _joined(graph, (*nodes, nodes[0]))


def eulerian_path(graph: Graph, walk: Walk, ends: Ends) -> bool:
    """A walk along each edge once; "No" where there is none (Euler: more than two nodes of odd degree, or edges apart)."""
    if walk is None:
        return not (_edges_hang_together(graph) and sum(len(near) % 2 for near in graph.values()) <= 2)
    steps = [frozenset(pair) for pair in pairwise(walk)]
    edges = {frozenset(edge) for edge in _edges(graph)}
    return bool(edges) and _joined(graph, walk) and len(steps) == len(edges) == len(set(steps))


def eulerian_cycle(graph: Graph, walk: Walk, ends: Ends) -> bool:
    """A closed walk along each edge once; "No" where there is none."""
    if walk is None:
        return not (_edges_hang_together(graph) and not any(len(near) % 2 for near in graph.values()))
    return walk[0] == walk[-1] and eulerian_path(graph, walk, ends)


def topological_order(graph: Graph, walk: Walk, ends: Ends) -> bool:
    """An order of all nodes in which each edge leads forward; "No" where the graph has a cycle."""
    if walk is None:
        return _has_cycle(graph)
    place = {node: at for at, node in enumerate(walk)}
    complete = len(walk) == len(graph) and place.keys() == set(graph)
    return complete and all(place[a] < place[b] for a, b in _edges(graph))


def connectivity(graph: Graph, walk: Walk, ends: Ends) -> bool:
    """A path from start to target where they are connected, and else (or if none are named) the number of connected components."""
    if walk is None or any(node is not None and node not in graph for node in (ends.start, ends.target)):
        return False
    components = _components(graph)
    if ends.start is not None and any(ends.start in one and ends.target in one for one in components):
        return walk[0] == ends.start and walk[-1] == ends.target and _joined(graph, walk)
    return walk == (str(len(components)),)


RULES: Mapping[str, GraphRule] = {
    "connectivity_test": GraphRule(question=connectivity),
    "eulerian_cycle": GraphRule(question=eulerian_cycle),
    "eulerian_path": GraphRule(question=eulerian_path),
    "hamiltonian_cycle": GraphRule(question=hamiltonian_cycle),
    "hamiltonian_path": GraphRule(question=hamiltonian_path),
    "topological_sort": GraphRule(
        question=topological_order,
        directed=True,
        form="the graph as you read it, one line for each node with the nodes that its edges lead to, as 0 -> 1 2",
    ),
}
"""By category of MM-HELIX."""


def _visits_all(graph: Graph, start: str, *, closed: bool) -> bool:
    """Whether a path from `start` visits each node once and, if `closed`, ends beside it. Depth first; failed states are remembered.

    Raises UndecidedError after MOST_STATES states.
    """
    index = {node: i for i, node in enumerate(graph)}
    near = [[index[other] for other in others] for others in graph.values()]
    whole, first = (1 << len(near)) - 1, index.get(start, -1)
    if first < 0:
        return False
    seen, pending = set[tuple[int, int]](), [(1 << first, first)]
    while pending:
        visited, node = pending.pop()
        if visited == whole:
            if not closed or first in near[node]:
                return True
            continue
        for other in near[node]:
            state = (visited | 1 << other, other)
            if not visited >> other & 1 and state not in seen:
                seen.add(state)
                pending.append(state)
        if len(seen) > MOST_STATES:
            raise UndecidedError(f"whether its graph of {len(near)} nodes has a Hamiltonian path was not decided in {MOST_STATES} states.")
    return False


def _components(graph: Graph) -> list[set[str]]:
    """The connected components of an undirected graph."""
    components, left = list[set[str]](), dict.fromkeys(graph)
    while left:
        component, pending = set[str](), [next(iter(left))]
        while pending:
            node = pending.pop()
            if node not in component:
                component.add(node)
                left.pop(node)
                pending += graph[node]
        components.append(component)
    return components


def _edges_hang_together(graph: Graph) -> bool:
    """Whether there are edges, all in one component."""
    return sum(len(component) > 1 for component in _components(graph)) == 1


def _has_cycle(graph: Graph) -> bool:
    """Whether a directed graph has a cycle: nodes without incoming edges are removed until none is left."""
    incoming = dict.fromkeys(graph, 0)
    for _, other in _edges(graph):
        incoming[other] += 1
    free = [node for node, number in incoming.items() if not number]
    removed = 0
    while free:
        removed += 1
        for other in graph[free.pop()]:
            incoming[other] -= 1
            if not incoming[other]:
                free.append(other)
    return removed < len(graph)


