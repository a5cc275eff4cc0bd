"""Every small graph, and its chromatic number by trying all colourings."""

from __future__ import annotations

from itertools import combinations, product
from random import Random

import networkx as nx

from percasym.tasks.graph_coloring.graph import (
    Graph,
    graph_of,
)


def labelled_graphs(num_nodes: int) -> list[Graph]:
    pairs = list(combinations(range(num_nodes), 2))
    return [
        graph_of(num_nodes, [pair for pair, there in zip(pairs, bits, strict=True) if there]) for bits in product((0, 1), repeat=len(pairs))
    ]


def unlabelled_graphs(num_nodes: int) -> list[Graph]:
    return [graph_of(num_nodes, [(min(e), max(e)) for e in g.edges]) for g in nx.graph_atlas_g() if g.number_of_nodes() == num_nodes]


def random_graph(rng: Random, num_nodes: int, num_edges: int) -> Graph:
    return graph_of(num_nodes, rng.sample(list(combinations(range(num_nodes), 2)), num_edges))


def networkx_of(graph: Graph) -> nx.Graph:
    oracle = nx.Graph(graph.edges)
    oracle.add_nodes_from(range(graph.num_nodes))
    return oracle


def brute_force(graph: Graph) -> int:
    for limit in range(1, graph.num_nodes + 1):
        if any(all(c[i] != c[j] for i, j in graph.edges) for c in product(range(limit), repeat=graph.num_nodes)):
            return limit
    raise AssertionError("a graph never needs more colours than nodes")
