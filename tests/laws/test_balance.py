"""What every balancing strategy obeys; a new conf/balance/*.yaml is tested with no edit, one of another package by PERCASYM_CONF."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, is_dataclass, replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percasym.balance.base import BalanceState, Gramian, Needs, SpanStats
from tests.laws.plugins import ROOT, files, made

FILES = files("balance")
NAMES = sorted(FILES)
NEUTRAL = {"schedule": {"begin": 0.5, "end": 0.5}, "staged": {"perception": 0.5, "reasoning": 0.5}}
"""Options under which a strategy favours no span, where its yaml means it to."""
EXCEPTIONS = {
    ("rlw", "exchange"): "it draws by the step, whichever span is called which",
    ("rlw", "equality"): "it draws whatever the losses of the spans are",
    ("uncertainty", "scale"): "its variances start at 1 nat, so the unit of the losses counts until that start is forgotten",
}
"""Laws that a strategy breaks by what it is, and why; that it does break them is tested below."""


def strategy(name: str, **options: float):
    """The strategy of a yaml with the values it states."""
    return made(FILES[name] if name in FILES else ROOT / "conf" / "balance" / f"{name}.yaml", **options)


def obeying(law: str) -> list[str]:
    return [name for name in NAMES if (name, law) not in EXCEPTIONS]


def stats_of(counts, losses, norms, cosine, step=3) -> SpanStats:
    gramian = Gramian(perception=norms[0] ** 2, reasoning=norms[1] ** 2, cross=cosine * norms[0] * norms[1])
    return SpanStats(step=step, num_steps=10, counts=counts, losses=losses, hidden=norms, gramian=gramian, spreads=norms)


def swapped(stats: SpanStats) -> SpanStats:
    """The same step with the names of the two spans exchanged."""
    gramian = Gramian(perception=stats.gramian.reasoning, reasoning=stats.gramian.perception, cross=stats.gramian.cross)
    pairs = {name: getattr(stats, name)[::-1] for name in ("counts", "losses", "hidden", "spreads")}
    return replace(stats, **pairs, gramian=gramian)


def scaled(stats: SpanStats, scale: float) -> SpanStats:
    """The same step with both losses, and so their gradients, multiplied by `scale`."""
    norms = tuple(scale * norm for norm in stats.gramian.norms)
    return stats_of(stats.counts, tuple(scale * loss for loss in stats.losses), norms, max(-1.0, min(1.0, stats.gramian.cosine)))


sizes = st.floats(1e-6, 1e6)
steps = st.builds(
    stats_of,
    counts=st.tuples(*[st.integers(1, 10**6)] * 2),
    losses=st.tuples(sizes, sizes),
    norms=st.tuples(sizes, sizes),
    cosine=st.floats(-1, 1),
)
histories = st.lists(steps, min_size=1, max_size=4)


def follow(balancer, history) -> BalanceState:
    state = balancer.start()
    for stats in history:
        state = balancer.step(state, stats)
    return state


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_is_a_frozen_dataclass_that_declares_what_it_needs(name):
    balancer = strategy(name)
    assert is_dataclass(balancer)
    assert type(balancer).__dataclass_params__.frozen
    assert balancer.needs in get_args(Needs)
    assert "needs" not in {field.name for field in fields(balancer)}  # Not an option of the yaml.


@pytest.mark.parametrize("name", NAMES)
@given(histories)
def test_the_weight_lies_in_the_unit_interval(name, history):
    balancer = strategy(name)
    assert 0 <= balancer.start().weight <= 1
    assert 0 <= follow(balancer, history).weight <= 1


@pytest.mark.parametrize("name", NAMES)
@given(histories)
def test_the_state_survives_json_and_the_same_history_gives_the_same_weight(name, history):
    balancer = strategy(name)
    state = balancer.start()
    for stats in history:
        kept = BalanceState(**json.loads(json.dumps(asdict(state), allow_nan=False)))
        assert kept == state
        state = balancer.step(kept, stats)
    assert state == follow(strategy(name), history)


@pytest.mark.parametrize("name", obeying("exchange"))
@given(histories)
def test_exchanging_the_spans_exchanges_the_weights(name, history):
    balancer = strategy(name, **NEUTRAL.get(name, {}))
    here, there = follow(balancer, history).weight, follow(balancer, [swapped(stats) for stats in history]).weight
    assert here + there == pytest.approx(1)


@pytest.mark.parametrize("name", obeying("scale"))
@given(histories, st.floats(1e-3, 1e3))
def test_the_scale_of_the_losses_does_not_matter(name, history, scale):
    assert follow(strategy(name), [scaled(stats, scale) for stats in history]).weight == pytest.approx(
        follow(strategy(name), history).weight
    )


@pytest.mark.parametrize("name", obeying("equality"))
@given(st.floats(1e-6, 1e6), st.integers(1, 10**6), st.floats(-1, 1))
def test_equal_spans_keep_equal_weights(name, size, count, cosine):
    stats = stats_of((count, count), (size, size), (size, size), cosine)
    assert follow(strategy(name, **NEUTRAL.get(name, {})), [stats, stats]).weight == pytest.approx(0.5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("broken", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("both", [True, False])
def test_a_step_without_finite_positive_numbers_changes_nothing(name, broken, both):
    balancer, usual = strategy(name), stats_of((3, 97), (1.0, 2.0), (3.0, 1.0), 0.5)
    before = balancer.step(balancer.start(), usual)
    other = broken if both else 1.0
    for pair in ((broken, other), (other, broken)):
        gramian = Gramian(perception=pair[0], reasoning=pair[1], cross=0.0)
        assert balancer.step(before, replace(usual, losses=pair, hidden=pair, spreads=pair, gramian=gramian)) == before


def test_a_cross_product_that_is_not_finite_changes_nothing():
    balancer, usual = strategy("mgda"), stats_of((3, 97), (1.0, 2.0), (3.0, 1.0), 0.0)
    before = balancer.step(balancer.start(), usual)
    assert balancer.step(before, replace(usual, gramian=Gramian(perception=1.0, reasoning=9.0, cross=math.nan))) == before


def test_each_exception_is_one():
    uneven, even = stats_of((1, 1), (1.0, 2.0), (1.0, 1.0), 0.0), stats_of((1, 1), (1.0, 1.0), (1.0, 1.0), 0.0)
    rlw, uncertainty = strategy("rlw"), strategy("uncertainty")
    broken = {
        ("rlw", "exchange"): follow(rlw, [uneven]).weight + follow(rlw, [swapped(uneven)]).weight != pytest.approx(1),
        ("rlw", "equality"): follow(rlw, [even]).weight != pytest.approx(0.5),
        ("uncertainty", "scale"): follow(uncertainty, [uneven]).weight != pytest.approx(follow(uncertainty, [scaled(uneven, 10.0)]).weight),
    }
    assert broken == dict.fromkeys(EXCEPTIONS, True)


@pytest.mark.parametrize("name", NAMES)
def test_the_yaml_opens_with_a_title_a_command_and_what_to_expect(name):
    title, command, expect, *_ = FILES[name].read_text().splitlines()
    assert title.startswith("# ")
    assert title.endswith(".")
    assert f"balance={name}" in command
    assert expect.startswith("# Expect: ")


def test_the_symmetry_law_catches_a_strategy_that_favours_a_span():
    skewed = strategy("fixed", weight=0.7)
    stats = stats_of((1, 1), (1.0, 1.0), (1.0, 1.0), 0.0)
    assert follow(skewed, [stats]).weight + follow(skewed, [swapped(stats)]).weight != pytest.approx(1)
