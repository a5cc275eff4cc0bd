"""Demonstrations of graph colouring are true: a reader that shares no code with them believes none of their sentences."""

from __future__ import annotations

import re

import pytest

from percasym.tasks.graph_coloring.explain import WORDINGS
from percasym.tasks.graph_coloring.graph import read_graph
from percasym.tasks.graph_coloring.search import needs_at_most
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.wording import plain_wording
from percasym.types import SampleKey
from tests.unit.tasks.graph_coloring_replay import (
    demonstration,
    graphs,
    replayed,
)


@pytest.mark.parametrize("verbosity", range(5))
@pytest.mark.parametrize(
    "task",
    [
        GraphColoring(),
        GraphColoring(density=(0.4, 1.0), chromatic=(2, 5), reflect_frac=1.0),
        GraphColoring(nodes=(6, 9), density=(0.35, 0.6), chromatic=(2, 5)),
    ],
    ids=["five", "dense", "more"],
)
def test_every_sentence_of_a_demonstration_is_true(task: GraphColoring, verbosity: int) -> None:
    for index in range(8):
        percept = task.truth(SampleKey(task="graph_coloring", split="test", seed=1, index=index))
        reasoning, answer = demonstration(percept, verbosity, reflect_frac=task.reflect_frac, salt=index)
        replayed(percept, verbosity, reasoning, answer)


@pytest.mark.parametrize("verbosity", range(5))
@pytest.mark.parametrize("name", graphs())
def test_refutations_exhaust_every_colouring(name: str, verbosity: int) -> None:
    # Rings, wheels and Groetzsch's graph need more colours than their largest clique has nodes: no short cut refutes fewer.
    reasoning, answer = demonstration(graphs()[name], verbosity, reflect_frac=0.5)
    replay = replayed(graphs()[name], verbosity, reasoning, answer)
    if name == "Groetzsch" and verbosity >= 1:
        assert replay.num_retreats_to_an_option > 0


def test_golden_demonstration_of_a_triangle_with_a_tail() -> None:
    # Two colours: A 1, B 2, and C sees both; nothing else was possible. Three colours: C takes 3, D sees only C 3.
    reasoning, answer = demonstration("4: AB AC BC CD", 1, reflect_frac=0.0)
    assert answer == "A1 B2 C3 D1"
    assert reasoning.split("\n") == [
        "",
        "Try 2 colors.",
        "A: Set 1.",
        "B: A 1. Set 2.",
        "C: A 1, B 2. Stuck.",
        "Undo B.",
        "Undo A.",
        "2 colors fail.",
        "Try 3 colors.",
        "A: Set 1.",
        "B: A 1. Set 2.",
        "C: A 1, B 2. Set 3.",
        "D: C 3. Set 1.",
        "3 colors work.",
    ]


@pytest.mark.parametrize("verbosity", range(5))
def test_the_reader_notices_any_other_number(verbosity: int) -> None:
    percept = graphs()["wheel"]
    reasoning, answer = demonstration(percept, verbosity, reflect_frac=0.6)
    replayed(percept, verbosity, reasoning, answer)
    for place in [match.start() for match in re.finditer(r"\d", reasoning)]:
        digit = str(int(reasoning[place]) % 4 + 1)  # Another colour that is in use somewhere.
        with pytest.raises((AssertionError, KeyError, IndexError)):
            replayed(percept, verbosity, reasoning[:place] + digit + reasoning[place + 1 :], answer)


@pytest.mark.parametrize("verbosity", range(5))
def test_the_reader_notices_any_missing_line(verbosity: int) -> None:
    percept = graphs()["wheel"]
    reasoning, answer = demonstration(percept, verbosity, reflect_frac=0.6)
    lines = reasoning[1:].split("\n")
    for place in range(len(lines)):
        with pytest.raises((AssertionError, KeyError, IndexError)):
            replayed(percept, verbosity, "\n" + "\n".join(lines[:place] + lines[place + 1 :]), answer)


@pytest.mark.parametrize("reflect_frac", [0.0, 0.25, 1.0])
def test_slips_begin_the_wanted_share_of_visits(reflect_frac: float) -> None:
    slips = visits = 0
    for salt in range(30):
        reasoning, answer = demonstration(graphs()["wheel"], 3, reflect_frac=reflect_frac, salt=salt)
        replay = replayed(graphs()["wheel"], 3, reasoning, answer)
        slips, visits = slips + replay.num_slips, visits + replay.num_visits_with_painted_neighbor
    assert slips / visits == pytest.approx(reflect_frac, abs=0.07)  # About 450 visits: three standard errors are 0.06.


def test_the_length_of_a_search_is_decided_exactly() -> None:
    for percept in graphs().values():
        graph = read_graph(percept)
        assert graph
        reasoning, _ = demonstration(percept, 1, reflect_frac=0.0)
        num_paints = reasoning.count("Set ")
        assert needs_at_most(graph, num_paints)
        assert not needs_at_most(graph, num_paints - 1)


def test_other_words_say_the_same() -> None:
    plain, other = GraphColoring(verbosity=3), GraphColoring(verbosity=3, variety_frac=1.0)
    for index in range(8):
        key = SampleKey(task="graph_coloring", split="test", seed=0, index=index)
        varied, original = other.sample(key).demonstration.reasoning, plain.sample(key).demonstration.reasoning
        assert varied != original and plain_wording(varied, WORDINGS) == original


def test_terse_demonstrations_are_those_that_give_results_only() -> None:
    full, terse, mixed = (GraphColoring(verbosity=3, terse_frac=frac) for frac in (0.0, 1.0, 0.5))
    kinds = set()
    for index in range(12):
        key = SampleKey(task="graph_coloring", split="train_sft", seed=0, index=index)
        long, short, drawn = (task.sample(key).demonstration.reasoning for task in (full, terse, mixed))
        assert short == GraphColoring(verbosity=0).sample(key).demonstration.reasoning
        kinds.add({long: "full", short: "terse"}[drawn])
    assert kinds == {"full", "terse"}
