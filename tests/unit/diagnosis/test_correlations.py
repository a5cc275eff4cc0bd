"""Correlations over all rollouts, within prompts and across prompts, against hand-worked values and plain formulas."""

import math
import time
from statistics import correlation, fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from percasym.diagnosis.correlations import MIN_GROUPS, Coupling, coupling
from percasym.diagnosis.scores import describe

VIEWS = ("pooled", "within", "across")


def r_of(found: Coupling) -> dict[str, float]:
    return {view: getattr(found, view).r for view in VIEWS}


def by_definition(x: list[list[float]], y: list[list[float]]) -> dict[str, float]:
    """The three correlations, spelled out with the standard library."""
    flat_x, flat_y = ([value for group in side for value in group] for side in (x, y))
    centred = [[value - fmean(group) for group in side for value in group] for side in (x, y)]
    return {
        "pooled": correlation(flat_x, flat_y),
        "within": correlation(*centred),
        "across": correlation(*[list(map(fmean, s)) for s in (x, y)]),
    }


def sampled(
    num_groups: int, *, shared: float, own: float, seed: int = 0, group_size: int = 8
) -> tuple[list[list[float]], list[list[float]]]:
    """Normal scores: x, y have unit variance in and between groups; `own` is their correlation in groups, `shared` that between groups."""
    rng = np.random.default_rng(seed)
    x_group, x_own = rng.normal(size=(num_groups, 1)), rng.normal(size=(num_groups, group_size))
    y_group = shared * x_group + math.sqrt(1 - shared**2) * rng.normal(size=(num_groups, 1))
    y_own = own * x_own + math.sqrt(1 - own**2) * rng.normal(size=(num_groups, group_size))
    return (x_group + x_own).tolist(), (y_group + y_own).tolist()


def test_four_rollouts_by_hand() -> None:
    # x = 0 1 | 0 1, y = 0 0 | 0 1. Pooled: cov 1/4 - 1/2 * 1/4 = 1/8, var 1/4 and 3/16: r = (1/8) / sqrt(3/64) = 1/sqrt(3).
    # Within: x - mean = -.5 .5 -.5 .5, y - mean = 0 0 -.5 .5: .5 / sqrt(1 * .5) = 1/sqrt(2). Across: x means are both .5, so no r.
    found = coupling([[0, 1], [0, 1]], [[0, 0], [0, 1]])
    assert found.pooled.r == pytest.approx(1 / math.sqrt(3))
    assert found.within.r == pytest.approx(1 / math.sqrt(2))
    assert math.isnan(found.across.r)
    assert (found.pooled.n, found.within.n, found.across.n, found.num_left_out) == (4, 4, 2, 0)


def test_siblings_can_disagree_while_prompts_agree() -> None:
    # In each group the higher x has the lower y; the second group is higher in both. Pooled: x = 0 1 4 5, y = 1 0 5 4:
    # deviations -2.5 -1.5 1.5 2.5 and -1.5 -2.5 2.5 1.5, products 4 * 3.75 = 15, squares 17 each: r = 15/17.
    found = r_of(coupling([[0, 1], [4, 5]], [[1, 0], [5, 4]]))
    assert found == pytest.approx({"pooled": 15 / 17, "within": -1.0, "across": 1.0})


@pytest.mark.parametrize("seed", range(3))
def test_the_grouped_sums_equal_the_plain_formula(seed: int) -> None:
    x, y = sampled(12, shared=0.5, own=-0.3, seed=seed)
    assert r_of(coupling(x, y)) == pytest.approx(by_definition(x, y), abs=1e-12)


def test_what_lacks_one_of_two_scores_is_left_out_and_counted() -> None:
    x, y = sampled(10, shared=0.5, own=0.5)
    gappy_x = [[None if (p + g) % 5 == 0 else score for g, score in enumerate(group)] for p, group in enumerate(x)]
    gappy_y = [[None if (p * g) % 7 == 1 else score for g, score in enumerate(group)] for p, group in enumerate(y)]
    kept = [[(a, b) for a, b in zip(*pair, strict=True) if a is not None and b is not None] for pair in zip(gappy_x, gappy_y, strict=True)]
    found = coupling(gappy_x, gappy_y)
    assert r_of(found) == pytest.approx(by_definition([[a for a, _ in g] for g in kept], [[b for _, b in g] for g in kept]), abs=1e-12)
    assert found.num_left_out == 80 - sum(map(len, kept)) > 10


def test_a_prompt_of_which_nothing_is_known_counts_nowhere() -> None:
    x, y = sampled(9, shared=0.5, own=0.5)
    found, more = coupling(x, y), coupling([*x, [None] * 8], [*y, [1.0] * 8])
    assert r_of(more) == r_of(found)
    assert (more.across.n, more.num_left_out) == (9, 8)
    assert more.within.ci95 == found.within.ci95


@pytest.mark.parametrize("constant", [0.0, 0.1, 1.0, 1e9])
def test_a_constant_score_has_no_correlation(constant: float) -> None:
    x, _ = sampled(10, shared=0.5, own=0.5)
    for found in (coupling(x, [[constant] * 8] * 10), coupling([[constant] * 8] * 10, x)):
        assert all(math.isnan(number) for view in VIEWS for number in (getattr(found, view).r, *getattr(found, view).ci95))


def test_float32_noise_is_no_variation() -> None:
    x, _ = sampled(10, shared=0.5, own=0.5)
    third = [[float(np.float32(1 / 3)) if g % 2 else 1 / 3 for g in range(8)] for _ in range(10)]
    assert math.isnan(coupling(x, third).within.r)


def test_nothing_measured_is_nan_not_an_error() -> None:
    for empty in ([], [[]], [[None, None]]):
        found = coupling(empty, empty)
        assert math.isnan(found.pooled.r)
        assert found.pooled.n == found.across.n == 0


def test_different_rollouts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the same rollouts on both sides, got groups of \[2\] and \[3\]"):
        coupling([[0, 1]], [[0, 1, 0]])


def test_the_interval_is_that_of_resampled_prompts() -> None:
    # The oracle draws prompts one at a time and computes r by definition.
    x, y = sampled(20, shared=0.8, own=0.2, group_size=4)
    rng = np.random.default_rng(1)
    draws = [by_definition([x[i] for i in chosen], [y[i] for i in chosen]) for chosen in rng.integers(20, size=(1000, 20))]
    found = coupling(x, y)
    for view in VIEWS:
        expected = np.quantile([draw[view] for draw in draws], (0.025, 0.975))
        assert getattr(found, view).ci95 == pytest.approx(tuple(expected), abs=0.03)


def test_siblings_add_no_independent_prompts() -> None:
    # Copies of one rollout as siblings: pooled r is unchanged, and so is its interval; drawing rollouts would shrink it threefold.
    x, y = sampled(30, shared=0.5, own=0.5, group_size=1)
    assert coupling([g * 9 for g in x], [g * 9 for g in y]).pooled.ci95 == pytest.approx(coupling(x, y).pooled.ci95)


def test_prompts_of_one_puzzle_are_drawn_together() -> None:
    x, y = sampled(16, shared=0.5, own=0.5)
    once, own, thrice = coupling(x, y), coupling(x, y, puzzles=[str(i) for i in range(16)]), coupling(x * 3, y * 3)
    again = coupling(x * 3, y * 3, puzzles=[str(i) for i in range(16)] * 3)
    for view in VIEWS:
        assert getattr(own, view) == getattr(once, view)
        assert getattr(again, view).ci95 == pytest.approx(getattr(once, view).ci95), "the same prompt three times is no news"
        low, high = getattr(thrice, view).ci95
        assert high - low < 0.8 * (getattr(once, view).ci95[1] - getattr(once, view).ci95[0])


def test_the_interval_holds_the_truth_nearly_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(100):
        low, high = coupling(*sampled(32, shared=0.9, own=0.4, seed=seed), resamples=400).within.ci95
        inside += low <= 0.4 <= high
    assert 86 <= inside <= 99, "32 prompts: 93 % of 100, give or take three standard errors"


def test_the_same_scores_have_the_same_interval() -> None:
    x, y = sampled(16, shared=0.5, own=0.5)
    assert coupling(x, y) == coupling(x, y)
    assert coupling(x, y, seed=1).within.ci95 != coupling(x, y).within.ci95


def test_too_few_prompts_have_no_interval() -> None:
    x, y = sampled(MIN_GROUPS, shared=0.5, own=0.5)
    assert not math.isnan(coupling(x, y).within.ci95[0])
    few = coupling(x[1:], y[1:]).within
    assert math.isnan(few.ci95[0])
    assert not math.isnan(few.r)


def test_ten_rewards_on_512_rollouts_take_well_under_a_second() -> None:
    x, y = sampled(64, shared=0.5, own=0.5)
    began = time.process_time()
    for seed in range(10):
        coupling(x, y, seed=seed)
    assert time.process_time() - began < 1.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.floats(0, 1) | st.none(), st.floats(0, 1)), max_size=4), max_size=10))
def test_every_r_lies_in_its_range_and_is_symmetric(pairs: list[list[tuple[float | None, float]]]) -> None:
    x, y = ([[pair[side] for pair in group] for group in pairs] for side in (0, 1))
    there, back = coupling(x, y, resamples=20), coupling(y, x, resamples=20)
    for view in VIEWS:
        r = getattr(there, view).r
        assert math.isnan(r) or -1 <= r <= 1
        assert getattr(back, view).r == pytest.approx(r, nan_ok=True)


def test_a_description_by_hand() -> None:
    # Known: 1 0 .5 .5 0, mean .4, variance (.36 + .16 + .01 + .01 + .16) / 5 = .14. The second group has one reward, and so does
    # the third: None counts as 0.
    found = describe([[1.0, 0.0], [0.5, 0.5], [None, 0.0]])
    assert (found.num_rollouts, found.mean, found.std) == (6, pytest.approx(0.4), pytest.approx(math.sqrt(0.14)))
    assert found.zero_variance == pytest.approx(2 / 3)
    assert found.not_measurable == pytest.approx(1 / 6)


def test_a_reward_that_never_scores_is_all_gaps() -> None:
    found = describe([[None, None], [None, None]])
    assert math.isnan(found.mean)
    assert (found.zero_variance, found.not_measurable) == (1.0, 1.0)
