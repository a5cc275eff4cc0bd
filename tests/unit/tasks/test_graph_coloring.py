"""Graph colouring: strict grading, puzzles within their ranges, pictures that hide nothing."""

from __future__ import annotations

import io
import math
import re
from itertools import combinations, product
from random import Random

import networkx as nx
import numpy as np
import pytest
from PIL import Image

from percasym.tasks.base import split_of
from percasym.tasks.canvas import FONTS, Look
from percasym.tasks.graph_coloring.draw import CLEARANCE, LEGIBLE_RADIUS_PX, Layout, least_image_px, places
from percasym.tasks.graph_coloring.graph import (
    LETTERS,
    Graph,
    chromatic_number,
    is_optimal,
    read_graph,
)
from percasym.tasks.graph_coloring.puzzle import Kind, graph_of_kind
from percasym.tasks.graph_coloring.search import needs_at_most
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.types import SampleKey
from tests.unit.tasks.graph_oracles import brute_force, labelled_graphs, networkx_of, unlabelled_graphs

HARD = Look(image_px=128, fonts=tuple(FONTS), glyph=(0.6, 0.9), contrast=(0.4, 1.0), dark_frac=0.5, noise=0.1, jitter=0.4)


def key_of(index: int, split: str = "test") -> SampleKey:
    return SampleKey(task="graph_coloring", split=split, seed=0, index=index)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("5: AB AC BD CE DE", "5: AB AC BD CE DE"),
        ("\n 5: DE AC AB BD CE ", "5: AB AC BD CE DE"),
        ("15: AO", "15: AO"),
        ("4:", "4:"),
    ],
)
def test_percepts_are_brought_to_one_form(text: str, canonical: str) -> None:
    assert GraphColoring().parse(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "", "5", "AB AC", "5 AB", "5: A B", "5:AB", "5: AB  AC", "5: AB, AC", "5: AB\nAC", "5: BA", "5: AA", "5: AB AB", "5: AF", "5: ab",
        "05: AB", "16: AB", "0:", "-5: AB", "5: AB AC.", "5: ABC", "x5: AB", "5: AB 5: AB", "\u0665: AB", "5: \u0391B",
    ],
)  # fmt: skip
def test_anything_else_is_no_percept(text: str) -> None:
    task = GraphColoring()
    assert task.parse(text) is None
    assert task.solve(text) is None
    assert not task.verify(text, "A1 B2 C1 D2 E1")
    assert task.agreement("5: AB", text) == 0.0
    with pytest.raises(ValueError, match="Only a percept such as"):
        task.draw(text, key_of(0))


def test_agreement_is_the_f1_of_edges_scaled_by_the_count_of_nodes() -> None:
    task = GraphColoring()
    # 2 of 3 edges right, 2 of 4 stated right: 2 * 2 / (3 + 4).
    assert task.agreement("5: AB AC BD", "5: AB AC CD CE") == pytest.approx(4 / 7)
    assert task.agreement("5: AB AC", "4: AB AC") == pytest.approx(4 / 5)
    assert task.agreement("5: AB AC", "5: AC AB") == 1.0
    assert task.agreement("5: AB AC", "5: BC") == 0.0


def test_any_proper_colouring_with_the_fewest_colours_is_right_and_no_other_is() -> None:
    task = GraphColoring()
    for graph in [*labelled_graphs(3), *unlabelled_graphs(4)]:
        fewest = brute_force(graph)
        for colors in product(range(1, graph.num_nodes + 2), repeat=graph.num_nodes):
            right = len(set(colors)) == fewest and all(colors[i] != colors[j] for i, j in graph.edges)
            answer = " ".join(f"{node}{color}" for node, color in zip(LETTERS, colors, strict=False))
            assert task.verify(str(graph), answer) == right


@pytest.mark.parametrize("answer", ["A1 B2 C1 D3", "D3 C1 B2 A1", " A1\nB2  C1 D3 ", "A2 B1 C2 D3", "A10 B7 C10 D1"])
def test_order_and_names_of_colours_are_free(answer: str) -> None:
    assert is_optimal(Graph(num_nodes=4, edges=((0, 1), (0, 3), (1, 2), (1, 3))), answer)


@pytest.mark.parametrize(
    "answer",
    [
        "", "A1 B2 C1", "A1 B2 C1 D3 E1", "A1 B2 C1 D3 A1", "A1 B2 C1 D1", "A1 B2 C4 D3", "A1,B2,C1,D3", "A1 B2 C1 D3.", "A 1 B 2 C 1 D 3",
        "A0 B2 C0 D3", "A01 B2 C01 D3", "A-1 B2 C-1 D3", "a1 b2 c1 d3", "A1B2C1D3", "A1 B2 C1 Dthree", "A\u0661 B2 C\u0661 D3",
        "so A1 B2 C1 D3",
    ],
)  # fmt: skip
def test_other_answers_are_wrong(answer: str) -> None:
    assert not is_optimal(Graph(num_nodes=4, edges=((0, 1), (0, 3), (1, 2), (1, 3))), answer)


@pytest.mark.parametrize("percept", ["1:", "15:", "6: AB CD", "15: AO", "15: " + " ".join(x + y for x, y in combinations(LETTERS, 2))])
def test_odd_percepts_are_solved_too(percept: str) -> None:
    task = GraphColoring()
    answer = task.solve(percept)
    assert answer is not None
    assert task.verify(percept, answer)


@pytest.mark.parametrize(
    "task",
    [
        GraphColoring(),
        GraphColoring(nodes=(4, 9), density=(0.4, 0.8), chromatic=(2, 5), max_steps=30),
        GraphColoring(nodes=(11, 11), density=(0.3, 0.5), chromatic=(4, 4), max_steps=40, look=Look(image_px=128)),
        GraphColoring(nodes=(15, 15), density=(0.6, 0.9), chromatic=(5, 7), look=Look(image_px=192)),
    ],
    ids=["five", "mixed", "eleven", "fifteen"],
)
def test_puzzles_keep_to_their_ranges(task: GraphColoring) -> None:
    for index in range(25):
        key = key_of(index, split=("base", "train_sft", "train_rl", "test")[index % 4])
        percept = task.truth(key)
        graph = read_graph(percept)
        assert graph is not None
        assert percept == str(graph) == task.parse(percept)
        assert task.nodes[0] <= graph.num_nodes <= task.nodes[1]
        assert task.density[0] <= len(graph.edges) / math.comb(graph.num_nodes, 2) <= task.density[1]
        assert task.chromatic[0] <= chromatic_number(graph) <= task.chromatic[1]
        assert nx.is_connected(networkx_of(graph))
        assert needs_at_most(graph, task.max_steps)
        assert split_of(task.canonical(percept)) == key.split


def test_every_possible_chromatic_number_is_drawn_about_as_often() -> None:
    task = GraphColoring(nodes=(8, 8), density=(0.4, 0.6), chromatic=(3, 5))
    drawn = [chromatic_number(read_graph(task.truth(key_of(index)))) for index in range(60)]
    assert all(drawn.count(number) >= 8 for number in (3, 4, 5))  # 20 expected, standard deviation 3.7.


def test_a_split_without_a_puzzle_is_an_error() -> None:
    task = GraphColoring(nodes=(4, 4), density=(1.0, 1.0), chromatic=(4, 4))  # One graph only: "4: AB AC AD BC BD CD".
    home = split_of("4: AB AC AD BC BD CD")
    assert task.truth(key_of(0, split=home)) == "4: AB AC AD BC BD CD"
    elsewhere = next(split for split in ("base", "test") if split != home)
    with pytest.raises(ValueError, match="Widen the task's ranges"):
        task.truth(key_of(0, split=elsewhere))


def test_a_search_that_cannot_be_short_enough_is_an_error() -> None:
    kind = Kind(num_nodes=6, num_colors=3, num_edges=range(9, 10))  # Two attempts paint at least 2 + 6 = 8 times.
    with pytest.raises(ValueError, match=r"at most task.max_steps=7 steps .* Raise task.max_steps"):
        graph_of_kind(kind, 9, 7, Random(0))
    assert needs_at_most(graph_of_kind(kind, 9, 8, Random(0)), 8)


@pytest.mark.parametrize("verbosity", range(5))
def test_a_sample_holds_together(verbosity: int) -> None:
    task = GraphColoring(verbosity=verbosity)
    sample = task.sample(key_of(3))
    assert sample == task.sample(key_of(3))
    assert sample.truth == task.truth(key_of(3))
    assert sample.demonstration.perception == f"<perception>{sample.truth}</perception>"
    assert sample.demonstration.reasoning.endswith(f"<answer>{sample.solution}</answer>")
    assert task.verify(sample.truth, sample.solution)
    assert sample.prompt.image == task.draw(sample.truth, key_of(3))


def test_the_puzzle_does_not_depend_on_how_it_is_shown_or_told() -> None:
    plain = GraphColoring()
    other = GraphColoring(verbosity=4, layout="scattered", look=HARD, reflect_frac=0.9, question="full")
    assert [plain.truth(key_of(i)) for i in range(10)] == [other.truth(key_of(i)) for i in range(10)]


def test_the_full_question_shows_a_percept_that_parses_and_its_right_answer() -> None:
    task = GraphColoring(question="full")
    question = task.sample(key_of(0)).prompt.question
    percept = re.search(r"<perception>([^<>]*:[^<>]*)</perception>", question)[1]
    answer = re.search(r"<answer>([^<>]*1[^<>]*)</answer>", question)[1]
    assert task.verify(percept, answer)


# Pieces of the packaged tokenizers' pre-tokenizer; \p{L} and \p{N} are ASCII here.
PIECE = re.compile(r"</?(?:perception|answer)>|\s?[A-Za-z]+|\s?[0-9]{1,2}|\s?[^\sA-Za-z0-9]+|\s+")


def share_of_perception(task: GraphColoring) -> float:
    counts = np.zeros(2)
    for index in range(30):
        demonstration = task.sample(key_of(index)).demonstration
        counts += len(PIECE.findall(demonstration.perception)), len(PIECE.findall(demonstration.reasoning)) + 1
    return counts[0] / counts.sum()


@pytest.mark.parametrize(
    ("verbosity", "low", "high"), [(0, 0.13, 0.16), (1, 0.08, 0.11), (2, 0.045, 0.06), (3, 0.027, 0.034), (4, 0.023, 0.028)]
)
def test_verbosity_moves_the_share_of_perception(verbosity: int, low: float, high: float) -> None:
    assert low <= share_of_perception(GraphColoring(verbosity=verbosity)) <= high


@pytest.mark.parametrize("layout", ["ring", "turned", "scattered"])
@pytest.mark.parametrize("num_nodes", [4, 5, 8, 11, 15])
def test_no_line_touches_a_third_node(num_nodes: int, layout: Layout) -> None:
    for jitter in (0.0, 0.5):
        look = Look(image_px=max(96, least_image_px(num_nodes)), jitter=jitter)
        for seed in range(2):
            points, radius = places(num_nodes, look, layout, Random(seed))
            assert radius >= LEGIBLE_RADIUS_PX
            assert all(radius <= v <= look.image_px - radius for point in points for v in point)
            for (i, start), (j, end) in combinations(enumerate(points), 2):
                assert math.dist(start, end) >= 3 * radius - 1e-9
                line = np.linspace(start, end, 200)
                for third, point in enumerate(points):
                    if third not in (i, j):
                        assert np.linalg.norm(line - point, axis=1).min() >= CLEARANCE * radius - 1e-9


def test_the_ring_begins_at_the_top_and_runs_clockwise() -> None:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = places(4, Look(image_px=100), "ring", Random(0))[0]
    assert ax == pytest.approx(50) == cx
    assert by == pytest.approx(50) == dy
    assert ay < 50 < cy
    assert dx < 50 < bx


@pytest.mark.parametrize("layout", ["ring", "turned", "scattered"])
def test_a_missing_edge_changes_only_the_pixels_along_it(layout: Layout) -> None:
    task = GraphColoring(layout=layout)
    pixels = [
        np.asarray(Image.open(io.BytesIO(task.draw(text, key_of(1)))).convert("L")) for text in ("5: AB AC BC CD DE", "5: AB AC CD DE")
    ]
    points, _ = places(5, task.look, layout, key_of(1).rng("places"))
    changed = np.argwhere(pixels[0] != pixels[1])
    line = np.linspace(points[1], points[2], 300)
    assert len(changed) > 0
    for y, x in changed:
        assert np.linalg.norm(line - (x + 0.5, y + 0.5), axis=1).min() < 2.5  # Pixels; the stroke is one wide.


def test_the_look_leaves_the_places_alone() -> None:
    plain, hard = Look(image_px=128), Look(image_px=128, fonts=("serif",), noise=0.1, contrast=(0.5, 0.6))
    assert places(6, plain, "scattered", Random(5)) == places(6, hard, "scattered", Random(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": (3, 5)}, r"task.nodes must be \[low, high\] with 4 <= low <= high <= 15, got \[3, 5\]"),
        ({"nodes": (5, 16)}, "task.nodes must be"),
        ({"nodes": (6, 5)}, "task.nodes must be"),
        ({"density": (0.0, 0.5)}, r"task.density must be \[low, high\] with 0 < low <= high <= 1, got \[0.0, 0.5\]"),
        ({"density": (0.7, 0.5)}, "task.density must be"),
        ({"density": (0.5, 1.1)}, "task.density must be"),
        ({"chromatic": (1, 3)}, r"task.chromatic must be \[low, high\] with 2 <= low <= high <= 5 \(the most nodes\), got \[1, 3\]"),
        ({"chromatic": (2, 6)}, "task.chromatic must be"),
        ({"density": (0.5, 0.6), "chromatic": (4, 4)}, "leave no connected graph with 5 nodes .such graphs have 7 to 9 of 10 edges."),
        ({"nodes": (4, 5), "chromatic": (5, 5)}, "leave no connected graph with 4 nodes .too many colors for them."),
        ({"density": (0.51, 0.59)}, "leave no connected graph with 5 nodes .such graphs have 4 to 8 of 10 edges."),
        ({"max_steps": 6}, "task.max_steps=6 is below the 7 steps"),
        ({"layout": "spiral"}, "task.layout must be one of ring, turned, scattered, got 'spiral'"),
        ({"verbosity": 5}, r"task.verbosity must lie in 0..4, got 5"),
        ({"reflect_frac": 1.5}, r"task.reflect_frac must lie in \[0, 1\], got 1.5"),
        ({"question": "rude"}, "task.question must be one of brief, full, got 'rude'"),
        ({"nodes": (12, 12)}, "task.look.image_px=96 is too small for the letters of 12 nodes; use at least 128"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_in_one_sentence(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphColoring(**options)


def test_five_letters_fit_into_64_pixels() -> None:
    assert least_image_px(5) <= 64
    assert GraphColoring(look=Look(image_px=64)).sample(key_of(0)).prompt.image


@pytest.mark.parametrize(
    ("percept", "is_valid"),
    [
        ("5: AB AC BC CD DE", True),  # A triangle with a tail: 5 of 10 edges, 3 colours.
        ("5: AB AC BC CD", False),  # E is alone.
        ("5: AB AC AD AE BC BD BE CD", False),  # 8 edges are more than 0.7 of 10.
        ("5: AB AC AD BC BD CD DE", False),  # A to D are all joined: 4 colours.
        ("4: AB AC BC CD", False),  # 4 nodes.
        ("nonsense", False),
    ],
)
def test_a_valid_percept_is_a_graph_that_the_task_could_draw(percept: str, is_valid: bool) -> None:
    assert GraphColoring(nodes=(5, 5), density=(0.5, 0.7), chromatic=(2, 3)).valid(percept) is is_valid


def test_the_largest_percept_is_read_and_a_longer_one_costs_nothing() -> None:
    complete = "15: " + " ".join(a + b for a, b in combinations(LETTERS, 2))
    assert len(read_graph(f" {complete}\n").edges) == 105
    assert read_graph(complete + " AB") is None
    assert read_graph("15:" + " AB" * 1_000_000) is None
