"""Graphs: chromatic number, cliques, connection and numbers of edges, against brute force and networkx."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from random import Random

import networkx as nx
import pytest

from percasym.tasks.graph_coloring.graph import (
    chromatic_number,
    graph_of,
    is_connected,
    largest_clique,
    optimal_coloring,
)
from percasym.tasks.graph_coloring.puzzle import edge_range
from tests.unit.tasks.graph_oracles import brute_force, labelled_graphs, networkx_of, random_graph, unlabelled_graphs


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 4, 5])
def test_chromatic_number_equals_brute_force_on_every_labelled_graph(num_nodes: int) -> None:
    for graph in labelled_graphs(num_nodes):
        colors = optimal_coloring(graph)
        assert all(colors[i] != colors[j] for i, j in graph.edges)
        assert chromatic_number(graph) == len(set(colors)) == brute_force(graph), graph


def test_chromatic_number_equals_brute_force_on_every_graph_of_six_nodes() -> None:
    graphs = unlabelled_graphs(6)
    assert len(graphs) == 156  # OEIS A000088.
    for graph in graphs:
        assert chromatic_number(graph) == brute_force(graph), graph


def test_chromatic_number_is_the_first_argument_at_which_the_chromatic_polynomial_is_positive() -> None:
    rng = Random(0)
    for _ in range(8):
        graph = random_graph(rng, 7, rng.randint(7, 10))
        polynomial = nx.chromatic_polynomial(networkx_of(graph))
        assert chromatic_number(graph) == next(k for k in range(1, 8) if polynomial.subs("x", k) > 0), graph


def test_chromatic_number_of_graphs_known_by_name() -> None:
    named = {nx.petersen_graph(): 3, nx.mycielski_graph(4): 4, nx.complete_graph(15): 15, nx.cycle_graph(15): 3, nx.star_graph(14): 2}
    for oracle, number in named.items():
        relabelled = nx.convert_node_labels_to_integers(oracle)
        graph = graph_of(relabelled.number_of_nodes(), [(min(e), max(e)) for e in relabelled.edges])
        assert chromatic_number(graph) == number


def test_cliques_and_connection_equal_networkx() -> None:
    rng = Random(1)
    for _ in range(60):
        num_nodes = rng.randint(2, 12)
        graph = random_graph(rng, num_nodes, rng.randint(0, num_nodes * (num_nodes - 1) // 2))
        oracle = networkx_of(graph)
        clique = largest_clique(graph)
        assert len(clique) == max(map(len, nx.find_cliques(oracle)))
        assert set(combinations(clique, 2)) <= set(graph.edges)
        assert is_connected(graph) == nx.is_connected(oracle)


def test_possible_numbers_of_edges_are_exactly_those_that_occur() -> None:
    found = defaultdict(set)
    for num_nodes in (2, 3, 4, 5, 6):
        for graph in filter(is_connected, unlabelled_graphs(num_nodes)):
            found[num_nodes, chromatic_number(graph)].add(len(graph.edges))
    for num_nodes in (2, 3, 4, 5, 6):
        for num_colors in range(2, num_nodes + 1):
            assert set(edge_range(num_nodes, num_colors)) == found[num_nodes, num_colors]
