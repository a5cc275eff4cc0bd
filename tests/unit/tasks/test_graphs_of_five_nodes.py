"""How many graphs of five nodes each split has, by going through all of them; docs/tasks.md says these numbers."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

from percasym.tasks.base import split_of
from percasym.tasks.graph_coloring.graph import Graph, all_pairs, chromatic_number, graph_of
from percasym.tasks.graph_coloring.puzzle import kinds_of
from percasym.tasks.graph_coloring.search import needs_at_most
from percasym.tasks.graph_coloring.task import GraphColoring

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tasks.md"


def connected(graph: Graph) -> bool:
    reached, grew = {0}, True
    while grew:
        more = {node for edge in graph.edges if reached & set(edge) for node in edge}
        grew, reached = not more <= reached, reached | more
    return len(reached) == graph.num_nodes


def test_the_page_says_how_many_graphs_of_five_nodes_there_are() -> None:
    task = GraphColoring(nodes=(5, 5))
    colors = {kind.num_colors: kind.num_edges for kind in kinds_of(5, task.density, task.chromatic)}
    every = (graph_of(5, edges) for num in range(4, 11) for edges in combinations(all_pairs(5), num))
    drawn = [graph for graph in every if connected(graph) and len(graph.edges) in colors.get(chromatic_number(graph), ())]
    counts = Counter(split_of(str(graph)) for graph in drawn if needs_at_most(graph, task.max_steps))
    found = re.search(r"are (\d+) in `train_sft`, (\d+) in `train_rl`, (\d+) in `test`", PAGE.read_text(encoding="utf-8"))
    assert found is not None
    assert tuple(map(int, found.groups())) == (counts["train_sft"], counts["train_rl"], counts["test"]) == (155, 76, 78)
