"""Graphs and their colourings in text: JSON edge lists, adjacency, "A-B", "(1, 2)", and the percept of `task=graph_coloring`.

Nodes keep the names of the picture (letters, numbers). The canonical text is the sorted edges, "A-B A-C"; a graph to be coloured is
connected, so its edges name all its nodes. Grading is that of `percasym.tasks.graph_coloring`, which has letters for nodes: those of p*
are named A, B, ... in their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from percasym.tasks.graph_coloring.graph import LETTERS, graph_of, is_connected, optimal_coloring, read_graph
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.released.found import Found, alone, found

Edge = tuple[str, str]
Edges = tuple[Edge, ...]
"""Sorted pairs of different names, each once."""

LABEL = r"(?:[A-Za-z]\d{0,2}|\d{1,3})"
PAIR = rf"(?:[(\[{{]\s*[\"']?({LABEL})[\"']?\s*,\s*[\"']?({LABEL})[\"']?\s*[)\]}}]|(?<!\w)({LABEL})\s*(?:--?|–|—)\s*({LABEL})(?!\w))"
PAIRS = re.compile(PAIR)
PAIR_RUN = re.compile(rf"[\[{{(]?\s*{PAIR}(?:[\s,;]*{PAIR})+\s*[\]}})]?")
OWN_FORM = re.compile(r"(?<!\w)[1-9][0-9]?:(?: [A-O][A-O])+(?!\w)")
ENTRY = rf"(?<!\w)[\"']?(?:[Nn]ode\s+)?({LABEL})[\"']?\s*(?::|=|->|→)\s*[\"']?(\w+)[\"']?"
ENTRIES = re.compile(ENTRY)
ENTRY_RUN = re.compile(rf"\{{?\s*(?:[-*]\s*)?{ENTRY}(?:[\s,;*-]*{ENTRY})*\s*\}}?")
SHORT_RUN = re.compile(r"(?<!\w)[A-Za-z][1-9][0-9]?(?:[\s,]+[A-Za-z][1-9][0-9]?)+(?!\w)")
FENCED = re.compile(r"```[A-Za-z]*[ \t]*\n(.*?)```", re.DOTALL)
JSON_OBJECT = re.compile(r"\{(?:[^{}]|\{[^{}]*\})*\}")
EDGE_KEYS, COLOR_KEYS = ("edges", "edge_list", "graph"), ("coloring", "colouring", "colors", "colours", "solution", "answer")
LONGEST = 4096
"""Characters of a statement (105 edges as indented JSON have 3,500), and of the end of a text in which runs of items are searched."""
_TASK = GraphColoring()


@dataclass(frozen=True, slots=True)
class GraphNotation:
    """Graphs of up to 15 nodes and their colourings."""

    def percepts(self, text: str) -> Sequence[Found]:
        """Edge lists: the whole text or a JSON object in it, else what stands in code fences, else runs of pairs."""
        return _graphs(text)

    def answers(self, text: str, percept: str) -> Sequence[Found]:
        """Colourings that name every node of the percept once."""
        return _colorings(text, _nodes(from_text(percept)))

    def parse(self, text: str) -> str | None:
        """The canonical text of exactly one edge list."""
        whole = _edges(text.strip())
        return whole if whole is not None else alone(self.percepts(text), text)

    def agreement(self, truth: str, stated: str) -> float:
        """F1 of the edges, times the smaller node count over the larger."""
        one, other = from_text(truth), from_text(stated)
        names = _letters([*_nodes(one), *_nodes(other)])
        if names is None:
            return 0.0
        few, many = sorted((len(_nodes(one)), len(_nodes(other))))
        return _TASK.agreement(_percept(one, names), _percept(other, names)) * few / many

    def verify(self, percept: str, answer: str) -> bool:
        """Whether `answer` is a proper colouring with exactly the chromatic number of colours, under any names."""
        edges = from_text(percept)
        nodes = _nodes(edges)
        names = _letters(nodes)
        whole = _coloring(answer.strip(), nodes)
        stated = whole if whole is not None else alone(self.answers(answer, percept), answer)
        if names is None or stated is None:
            return False
        colors = dict(entry.split(":") for entry in stated.split())
        numbers = {color: number for number, color in enumerate(dict.fromkeys(colors.values()), start=1)}
        return _TASK.verify(_percept(edges, names), " ".join(f"{names[node]}{numbers[colors[node]]}" for node in nodes))

    def solve(self, percept: str) -> str | None:
        """An optimal colouring, "A:1 B:2"; None for more nodes than can be solved exactly."""
        edges = from_text(percept)
        names = _letters(nodes := _nodes(edges))
        graph = None if names is None else read_graph(_percept(edges, names))
        if graph is None:
            return None
        return " ".join(f"{node}:{color}" for node, color in zip(nodes, optimal_coloring(graph), strict=True))

    def valid(self, percept: str) -> bool:
        """Whether the graph is connected and has at most 15 nodes."""
        edges = from_text(percept)
        names = _letters(_nodes(edges))
        graph = None if names is None else read_graph(_percept(edges, names))
        return graph is not None and is_connected(graph)

    def canonical(self, percept: str) -> str:
        """The percept itself."""
        return percept


def to_text(pairs: Iterable[Edge]) -> str | None:
    """The canonical text of these edges; None for a loop, and for no edge at all.

    >>> to_text([("B", "A"), ("A", "10"), ("A", "9"), ("A", "B")])
    '9-A 10-A A-B'
    """
    edges = {tuple(sorted(pair, key=order)) for pair in pairs}
    if not edges or any(a == b for a, b in edges):
        return None
    return " ".join(f"{a}-{b}" for a, b in sorted(edges, key=lambda edge: (order(edge[0]), order(edge[1]))))


def from_text(canonical: str) -> Edges:
    """The edges of a canonical text."""
    return tuple((a, b) for a, _, b in (edge.partition("-") for edge in canonical.split()))


def order(name: str) -> tuple[int, str]:
    """Numbers by value, then letters."""
    return (int(name), "") if name.isdecimal() else (1000, name)


@lru_cache(maxsize=4096)
def _nodes(edges: Edges) -> tuple[str, ...]:
    return tuple(sorted({node for edge in edges for node in edge}, key=order))


def _letters(nodes: Sequence[str]) -> Mapping[str, str] | None:
    """A letter for each name in its first place; None for more names than letters."""
    names = tuple(dict.fromkeys(nodes))
    return dict(zip(names, LETTERS, strict=False)) if len(names) <= len(LETTERS) else None


def _percept(edges: Edges, names: Mapping[str, str]) -> str:
    """The percept of `percasym.tasks.graph_coloring` on all of these names."""
    pairs = (sorted((LETTERS.index(names[a]), LETTERS.index(names[b]))) for a, b in edges)
    return str(graph_of(len(names), ((a, b) for a, b in pairs)))


@lru_cache(maxsize=64)  # Each text of a row is searched several times; a data set has few queries.
def _graphs(text: str) -> Sequence[Found]:
    """The graphs in code fences and JSON objects; without any, those in runs of pairs."""
    return _stated(text, _edges, ()) or _stated(text, _edges, (PAIR_RUN, OWN_FORM))


@lru_cache(maxsize=64)
def _colorings(text: str, nodes: tuple[str, ...]) -> Sequence[Found]:
    return _stated(text, lambda part: _coloring(part, nodes), (ENTRY_RUN, SHORT_RUN))


def _stated(text: str, read: Callable[[str], str | None], runs: Sequence[re.Pattern[str]]) -> Sequence[Found]:
    """Statements that `read` understands, by decreasing formality: the whole text, JSON objects and code fences, runs of items
    at its end."""
    if len(text) <= LONGEST and (whole := read(text.strip())) is not None:
        return [Found(text=whole, start=0, end=len(text))]
    formal = {(match.start(1), match.end(1)) for match in FENCED.finditer(text)}
    formal |= {(match.start(), match.end()) for match in JSON_OBJECT.finditer(text)}
    taken = list[tuple[int, int]]()
    statements = list[Found]()
    begin = max(0, len(text) - LONGEST)
    for places in (sorted(formal), sorted(match.span() for run in runs for match in run.finditer(text, begin))):
        for start, end in places:
            if end - start > LONGEST or any(start < other_end and other_start < end for other_start, other_end in taken):
                continue
            if (stated := read(text[start:end].strip())) is not None:
                statements.append(found(stated, text, start, end))
                taken.append((start, end))
    return sorted(statements, key=lambda one: one.start)


def _edges(text: str) -> str | None:
    """The canonical text of a statement of edges and nothing else."""
    if OWN_FORM.fullmatch(text):
        graph = read_graph(text)
        return None if graph is None else to_text((LETTERS[i], LETTERS[j]) for i, j in graph.edges)
    if text.startswith(("{", "[")):
        try:
            pairs = _json_edges(json.loads(text))
        except ValueError:
            pairs = None
        if pairs is not None:
            return to_text(pairs)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(?:nodes|vertices|V)\s*[:=]", line, re.IGNORECASE)]
    bare = re.sub(r"\A\s*(?:edges|E)\s*[:=]", "", "\n".join(lines), flags=re.IGNORECASE)
    pairs = [(a or c, b or d) for a, b, c, d in PAIRS.findall(bare)]
    return to_text(pairs) if pairs and not PAIRS.sub("", bare).strip(" \t\r\n,;[](){}") else None


def _json_edges(value: object) -> list[Edge] | None:
    """Edges of a parsed value: [[a, b], ...], {"edges": ...}, ["A-B", ...], or {node: [neighbours]}."""
    if isinstance(value, dict):
        for key in EDGE_KEYS:
            if key in value:
                return _json_edges(value[key])
        lists = value and all(isinstance(near, list) for near in value.values())
        return [(str(node), str(other)) for node, near in value.items() for other in near] if lists else None
    if not isinstance(value, list) or not value:
        return None
    edges = list[Edge]()
    for entry in value:
        if isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str | int) for name in entry):
            edges.append((str(entry[0]), str(entry[1])))
        elif isinstance(entry, str) and (match := re.fullmatch(PAIR, entry.strip())):
            edges.append((match[1] or match[3], match[2] or match[4]))
        else:
            return None
    return edges


def _coloring(text: str, nodes: Sequence[str]) -> str | None:
    """A colour for every node, "A:red B:1"; None where one is missing or named twice."""
    if text.startswith(("{", "[")):
        try:
            entries = _json_colors(json.loads(text), nodes)
        except ValueError:
            entries = None
        if entries is not None:
            return _of_entries(entries, nodes)
    if ENTRY_RUN.fullmatch(text):
        return _of_entries(ENTRIES.findall(text), nodes)
    if SHORT_RUN.fullmatch(text):
        return _of_entries([(word[0], word[1:]) for word in re.split(r"[\s,]+", text)], nodes)
    return None


def _json_colors(value: object, nodes: Sequence[str]) -> list[tuple[str, str]] | None:
    if isinstance(value, dict):
        for key in COLOR_KEYS:
            if isinstance(value.get(key), dict | list):
                return _json_colors(value[key], nodes)
        plain = value and all(isinstance(color, str | int) for color in value.values())
        return [(str(node), str(color)) for node, color in value.items()] if plain else None
    if isinstance(value, list) and len(value) == len(nodes) and all(isinstance(color, str | int) for color in value):
        return [(node, str(color)) for node, color in zip(nodes, value, strict=True)]
    return None


def _of_entries(entries: Sequence[tuple[str, str]], nodes: Sequence[str]) -> str | None:
    colors = dict(entries)
    if len(colors) != len(entries) or colors.keys() != set(nodes) or any(" " in color or ":" in color for color in colors.values()):
        return None
    return " ".join(f"{node}:{colors[node]}" for node in nodes)
