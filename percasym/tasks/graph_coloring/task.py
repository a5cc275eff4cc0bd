"""Graph Coloring as a task: colour every node so that neighbours differ, with as few colours as possible.

The percept is the list of edges, the answer a colour for each node; positions in the picture carry no information. Difficulty of
perception (`layout`, `look`, number of edges) and of reasoning (`chromatic`, `max_steps`) are set independently.

    python train.py task=graph_coloring task.nodes=[5,6]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from percasym.config.schema import fraction, one_of
from percasym.spans.grammar import Grammar
from percasym.tasks.base import SyntheticTask
from percasym.tasks.canvas import Look
from percasym.tasks.graph_coloring.draw import Layout, draw_graph_png, least_image_px
from percasym.tasks.graph_coloring.explain import MAX_VERBOSITY, WORDINGS, explain
from percasym.tasks.graph_coloring.graph import (
    Graph,
    chromatic_number,
    is_connected,
    is_optimal,
    optimal_coloring,
    read_graph,
    write_answer,
)
from percasym.tasks.graph_coloring.puzzle import FEWEST_NODES, MOST_NODES, draw_graph, edge_range, fewest_steps, kinds_of
from percasym.tasks.graph_coloring.search import found, needs_at_most, search
from percasym.tasks.wording import vary_wording
from percasym.types import Prompt, Sample, SampleKey

QUESTIONS = {
    "brief": "Color the graph.",
    "full": (
        "The picture shows a graph: discs with letters are its nodes, straight lines are its edges. Color every node so that the two "
        "ends of each edge have different colors, using as few different colors as possible.\n"
        "First state what you see: the number of nodes, a colon, and every edge as its two letters in alphabetical order, edges sorted "
        "and separated by single spaces, between <perception> and </perception>. For four nodes in a row that is "
        "<perception>4: AB BC CD</perception>.\n"
        "Then think step by step: show that fewer colors are not enough, color the nodes, and check every edge.\n"
        "End with one color number for each node, counted from 1, between <answer> and </answer>, for example "
        "<answer>A1 B2 C1 D2</answer>. Write nothing after it, and use each of the four tags exactly once."
    ),
}
"""`brief` for a model trained on the response format; `full` states the format, for any model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphColoring(SyntheticTask):
    """Connected graphs on lettered nodes; any proper colouring with exactly the chromatic number of colours is correct."""

    name: ClassVar[str] = "graph_coloring"

    nodes: tuple[int, int] = (5, 5)
    """Fewest and most nodes, 4 to 15."""
    density: tuple[float, float] = (0.5, 0.7)
    """Least and largest number of edges as a share of all pairs of nodes."""
    chromatic: tuple[int, int] = (2, 3)
    """Least and largest chromatic number, which sets the number of attempts needed to find a colouring and prove it optimal."""
    max_steps: int = 60
    """Longest search of a puzzle, in colours painted over all attempts; puzzles with longer ones are rejected."""
    layout: Layout = "ring"
    """Positions of the nodes: `ring`, `turned` (the order must be read) or `scattered`."""
    verbosity: int = 2
    """Detail of the demonstrations: perception has about 15 % of their tokens at 0 and 2.5 % at 4."""
    reflect_frac: float = 0.2
    """Share of the visits to a node that begin with a wrong value, which is checked and undone."""
    terse_frac: float = 0.0
    """Share of the demonstrations with results only (verbosity 0), as in data from several sources."""
    variety_frac: float = 0.0
    """Share of the fixed phrases of a demonstration whose wording is drawn at random (see `WORDINGS`)."""
    question: Literal["brief", "full"] = "brief"
    """`brief` for a model trained on the response format; `full` states the format, for any model."""
    look: Look = field(default_factory=lambda: Look(image_px=96))
    """How the picture is drawn."""

    def __post_init__(self) -> None:
        if not FEWEST_NODES <= self.nodes[0] <= self.nodes[1] <= MOST_NODES:
            raise ValueError(f"task.nodes must be [low, high] with {FEWEST_NODES} <= low <= high <= {MOST_NODES}, got {list(self.nodes)}.")
        if not 0 < self.density[0] <= self.density[1] <= 1:
            raise ValueError(f"task.density must be [low, high] with 0 < low <= high <= 1, got {list(self.density)}.")
        if not 2 <= self.chromatic[0] <= self.chromatic[1] <= self.nodes[1]:
            raise ValueError(
                f"task.chromatic must be [low, high] with 2 <= low <= high <= {self.nodes[1]} (the most nodes), got {list(self.chromatic)}."
            )
        for num_nodes in range(self.nodes[0], self.nodes[1] + 1):
            self._check_kinds(num_nodes)
        one_of("task", Layout, layout=self.layout)
        if not 0 <= self.verbosity <= MAX_VERBOSITY:
            raise ValueError(f"task.verbosity must lie in 0..{MAX_VERBOSITY}, got {self.verbosity}.")
        fraction("task", reflect_frac=self.reflect_frac, variety_frac=self.variety_frac, terse_frac=self.terse_frac)
        if self.question not in QUESTIONS:
            raise ValueError(f"task.question must be one of {', '.join(QUESTIONS)}, got {self.question!r}.")
        if self.look.image_px < (least := least_image_px(self.nodes[1])):
            raise ValueError(
                f"task.look.image_px={self.look.image_px} is too small for the letters of {self.nodes[1]} nodes; "
                f"use at least {least}, or fewer nodes."
            )

    def sample(self, key: SampleKey) -> Sample:
        """The sample of a key: same key, same bytes."""
        graph = self._graph(key)
        percept = str(graph)
        steps = tuple(search(graph, key.rng("slips"), self.reflect_frac))
        solution = write_answer(found(steps))
        verbosity = 0 if key.rng("terse").random() < self.terse_frac else self.verbosity
        reasoning = vary_wording(explain(graph, steps, verbosity), WORDINGS, key.rng("words"), self.variety_frac)
        return Sample(
            prompt=Prompt(key=key, image=self.draw(percept, key), question=QUESTIONS[self.question]),
            truth=percept,
            solution=solution,
            demonstration=Grammar().demonstrate(percept, reasoning, solution),
        )

    def truth(self, key: SampleKey) -> str:
        """The percept of a key, without its picture and demonstration."""
        return str(self._graph(key))

    def parse(self, text: str) -> str | None:
        """The canonical form of a stated percept; None unless it is exactly `N: XY XY ...` (see `read_graph`)."""
        graph = read_graph(text)
        return None if graph is None else str(graph)

    def agreement(self, truth: str, stated: str) -> float:
        """F1 of the edges, times the smaller node count over the larger; 0 for what cannot be parsed.

        >>> GraphColoring().agreement("4: AB BC CD", "4: AB BC BD"), GraphColoring().agreement("4: AB BC CD", "5: AB BC CD")
        (0.6666666666666666, 0.8)
        """
        one, other = read_graph(truth), read_graph(stated)
        if one is None or other is None:
            return 0.0
        total = len(one.edges) + len(other.edges)
        f1 = 2 * len({*one.edges} & {*other.edges}) / total if total else 1.0
        return f1 * min(one.num_nodes, other.num_nodes) / max(one.num_nodes, other.num_nodes)

    def verify(self, percept: str, answer: str) -> bool:
        """Whether `answer` is a proper colouring of `percept` with exactly its chromatic number of colours, under any names."""
        graph = read_graph(percept)
        return graph is not None and is_optimal(graph, answer)

    def draw(self, percept: str, key: SampleKey) -> bytes:
        """The picture of a canonical percept as PNG bytes; the key decides positions and appearance only.

        Raises ValueError for a text that is no percept.
        """
        graph = read_graph(percept)
        if graph is None:
            raise ValueError(f"Only a percept such as '4: AB BC CD' can be drawn, got {percept[:80]!r}.")
        return draw_graph_png(graph, self.look, self.layout, place_rng=key.rng("places"), look_rng=key.rng("look"))

    def solve(self, percept: str) -> str | None:
        """An optimal colouring of a percept; None only for malformed text, because every graph has one."""
        graph = read_graph(percept)
        return None if graph is None else write_answer(optimal_coloring(graph))

    def valid(self, percept: str) -> bool:
        """Whether the graph is connected, and its nodes, edges, chromatic number and search length are within the options."""
        graph = read_graph(percept)
        if graph is None or not self.nodes[0] <= graph.num_nodes <= self.nodes[1] or not is_connected(graph):
            return False
        kinds = kinds_of(graph.num_nodes, self.density, self.chromatic)
        possible = any(len(graph.edges) in kind.num_edges and chromatic_number(graph) == kind.num_colors for kind in kinds)
        return possible and needs_at_most(graph, self.max_steps)

    def canonical(self, percept: str) -> str:
        """The percept itself: graphs are the same puzzle if they have the same edges."""
        return percept

    def _graph(self, key: SampleKey) -> Graph:
        return draw_graph(key, nodes=self.nodes, density=self.density, chromatic=self.chromatic, max_steps=self.max_steps)

    def _check_kinds(self, num_nodes: int) -> None:
        """Raise ValueError unless the ranges allow some graph with this many nodes, and its search fits."""
        kinds = kinds_of(num_nodes, self.density, self.chromatic)
        if not kinds:
            pairs = num_nodes * (num_nodes - 1) // 2
            possible = [n for k in range(self.chromatic[0], min(self.chromatic[1], num_nodes) + 1) for n in edge_range(num_nodes, k)]
            hint = f"such graphs have {min(possible)} to {max(possible)} of {pairs} edges" if possible else "too many colors for them"
            raise ValueError(
                f"task.density={list(self.density)} and task.chromatic={list(self.chromatic)} leave no connected graph with "
                f"{num_nodes} nodes ({hint}). Widen one of them, or change task.nodes."
            )
        if self.max_steps < (least := max(fewest_steps(num_nodes, kind.num_colors) for kind in kinds)):
            raise ValueError(f"task.max_steps={self.max_steps} is below the {least} steps that some of these graphs need. Raise it.")
