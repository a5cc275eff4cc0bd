"""The reasoning of a Graph Coloring demonstration: the steps of a search as text, at five levels of detail.

Each word with its leading space is one token of the packaged tokenizers, and each follows from the stated percept and the text before it
by a short look-up, except the value that a slip tries. Every sentence is true: tests/unit/tasks/test_graph_coloring_trace.py replays them.

| verbosity | content |
|---|---|
| 0 | the successful attempt: the coloured neighbours of each node, and its colour |
| 1 | every attempt, with slips |
| 2 | also the neighbours of each node, the order, the options, a short check of every edge |
| 3 | also open neighbours, the untried options at each undo, one sentence for each edge, why fewer colours fail |
| 4 | also the colours of the neighbours, and a longer sentence for each edge |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from percasym.tasks.graph_coloring.graph import LETTERS, Coloring, Graph, neighbors, nodes_in
from percasym.tasks.graph_coloring.search import Attempt, Failure, Paint, Slip, Step, Success, Undo, Visit, found, visiting_order

MAX_VERBOSITY = 4

WORDINGS = {
    " next to ": (" is next to ", " has edges to ", " touches ", " borders ", " meets ", " joins ", " is linked to "),
    " open": (" is open", " is left open", " is free", " is blank", " waits", " has none", " uncolored"),
    "Options ": ("Options: ", "Candidates ", "Candidates: ", "Possible ", "Possible: ", "Could be ", "It can be "),
    "Set ": ("Color ", "So ", "Put ", "Give ", "Paint ", "Make ", "Pick "),
    "\nUndo ": ("\nErase ", "\nClear ", "\nRemove ", "\nTake back "),
    "\nCheck ": ("\nVerify ", "\nEdge ", "\nTest ", "\nSee ", "\nFor ", "\nAcross "),
    " differ.": (" are fine.", " fine.", " are different.", " are distinct.", " are good.", " do not clash."),
}
"""Equivalent phrases, for demonstrations with `variety_frac`."""


def explain(graph: Graph, steps: Sequence[Step], verbosity: int) -> str:
    """The text of a successful search, starting with a newline."""
    if verbosity == 0:
        last = max(place for place, step in enumerate(steps) if isinstance(step, Attempt))
        steps = steps[last:]
    body = "".join(_step_text(step, verbosity) for step in steps)
    return f"{_introduction(graph, verbosity)}{body}{_check(graph, found(steps), verbosity)}"


def _introduction(graph: Graph, verbosity: int) -> str:
    if verbosity < 2:
        return ""
    near = neighbors(graph)
    lines = [f"\n{LETTERS[node]} next to {_letters(nodes_in(near[node]))}." for node in range(graph.num_nodes)]
    lines.append(f"\nOrder {_letters(visiting_order(graph))}.")
    if verbosity >= 3:
        lines.append(f"\n{_edge(graph.edges[0])} is an edge, so 1 color fails.")
        lines.append("\nNew colors are alike, so only the least new color is an option.")
    return "".join(lines)


def _step_text(step: Step, verbosity: int) -> str:
    match step:
        case Attempt():
            return f"\nTry {step.num_colors} colors."
        case Visit():
            return _visit(step, verbosity)
        case Paint():
            return f" Set {LETTERS[step.node]} {step.color}." if verbosity >= 3 else f" Set {step.color}."
        case Undo():
            left = f", {_options(step.left)} left" if verbosity >= 3 else ""
            return f"\nUndo {LETTERS[step.node]}{left}."
        case Failure():
            return f"\n{step.num_colors} colors fail."
        case Success():
            return f"\n{max(step.coloring)} colors work." if verbosity >= 1 else ""


def _visit(visit: Visit, verbosity: int) -> str:
    """A visit of a node: its neighbours, an optional slip, their colours, and the remaining options."""
    shown = [(neighbor, color) for neighbor, color in visit.neighbors if color or verbosity >= 3]
    colors = ", ".join(f"{LETTERS[neighbor]} {color or 'open'}" for neighbor, color in shown)
    head = (
        f"\n{LETTERS[visit.node]} next to {_letters(node for node, _ in visit.neighbors)}."
        if verbosity >= 3
        else f"\n{LETTERS[visit.node]}:"
    )
    parts = [head]
    if visit.slip and verbosity >= 1:
        parts.append(_slip(visit.slip))
    if colors:
        parts.append(f" {colors}.")
    if verbosity >= 4:
        parts.append(f" Taken {_numbers(sorted({color for _, color in visit.neighbors if color}))}.")
    if verbosity >= 2:
        parts.append(f" Options {_numbers(visit.options)}.")
    elif not visit.options:
        parts.append(" Stuck.")
    return "".join(parts)


def _slip(slip: Slip) -> str:
    return f" Try {slip.color}. {LETTERS[slip.neighbor]} is {slip.color} too. Undo."


def _check(graph: Graph, coloring: Coloring, verbosity: int) -> str:
    """A check of every edge, and of the number of colours."""
    if verbosity < 2:
        return ""
    if verbosity == 2:
        edges = "".join(f" {_edge((i, j))} {coloring[i]} {coloring[j]}," for i, j in graph.edges)
        return f"\nCheck{edges} all differ."
    sentence = "\nCheck {edge}: {x} is {a}, {y} is {b}, they differ." if verbosity >= 4 else "\nCheck {edge}: {a} and {b} differ."
    lines = [sentence.format(edge=_edge((i, j)), x=LETTERS[i], y=LETTERS[j], a=coloring[i], b=coloring[j]) for i, j in graph.edges]
    most = max(coloring)
    fewer = "1 color fails" if most == 2 else f"{most - 1} colors fail"
    lines.append(f"\nUsed {_numbers(range(1, most + 1))}. {fewer}, so {most} is the least.")
    return "".join(lines)


def _edge(edge: tuple[int, int]) -> str:
    return LETTERS[edge[0]] + LETTERS[edge[1]]


def _letters(nodes: Iterable[int]) -> str:
    return " ".join(LETTERS[node] for node in nodes)


def _numbers(colors: Iterable[int]) -> str:
    return " ".join(map(str, colors)) or "none"


def _options(left: Sequence[int]) -> str:
    return f"option{'s' * (len(left) > 1)} {_numbers(left)}" if left else "no option"
