"""Intervals against values worked by hand, and against scipy and statsmodels."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from percasym import statistics
from percasym.statistics import Z95, change, gain, proportion, student


def test_wilson_interval_of_eight_in_ten() -> None:
    # z = 1.96: (8 + 1.9207) / (10 + 3.8415) = .71674; 1.96 * sqrt(10 * .8 * .2 + .96036) / 13.8415 = .22658.
    estimate = proportion([True] * 8 + [False] * 2)
    assert estimate.mean == 0.8
    assert estimate.n == 10
    assert estimate.ci95 == pytest.approx((0.49016, 0.94332), abs=1e-4)


def test_no_success_leaves_room_for_some() -> None:
    # n = 4 and 10, none right: the upper end is z^2 / (n + z^2) = 3.8415 / 7.8415 = .48989, and 3.8415 / 13.8415 = .27753.
    assert proportion([False] * 4).ci95 == (0.0, pytest.approx(0.48989, abs=1e-5))
    assert proportion([False] * 10).ci95 == (0.0, pytest.approx(0.27753, abs=1e-5))
    assert proportion([True] * 10).ci95 == (pytest.approx(0.72247, abs=1e-5), 1.0)


def test_what_is_not_measurable_is_not_counted() -> None:
    assert proportion([True, None, False, None]).n == 2
    assert proportion([0.5, None]).n == 1
    assert gain([True, None, False], [True, True, None]).n == 1
    assert change([1.0, None], reach=2.0).n == 1


@pytest.mark.parametrize("estimate", [proportion([]), proportion([None]), gain([None], [True]), change([], reach=2.0)])
def test_nothing_measured_is_nan_not_zero(estimate: object) -> None:
    assert estimate.n == 0
    assert math.isnan(estimate.mean)
    assert all(map(math.isnan, estimate.ci95))


def test_graded_values_have_the_interval_of_verdicts_with_the_same_variance() -> None:
    assert proportion([0.0, 1.0] * 50) == proportion([False, True] * 50)
    # Half the distance from the mean is a quarter of the variance, here with half a verdict more: (100 * .0625 + .5 * .25) / 100.5
    # = .063433, so 100 such values are worth 100 * .25 / .063433 = 394.12 verdicts: 1.96 sqrt(394.12 * .25 + .9604) / 397.96 = .04912.
    assert proportion([0.25, 0.75] * 50).ci95 == pytest.approx((0.5 - 0.04912, 0.5 + 0.04912), abs=1e-4)


def test_equal_graded_values_keep_a_width() -> None:
    low, high = proportion([0.5] * 4).ci95
    assert 0.3 < low < 0.42 and 0.58 < high < 0.7


def test_paired_gain_of_six_samples_that_improved_and_one_that_got_worse() -> None:
    # n = 20, 6 up, 1 down: mean 5/20. With half a pair in each cell: centre 5/22 = .22727,
    # reach 1.96 * sqrt(7 + 1 - 25/22) / 22 = 1.96 * 2.61986 / 22 = .23340.
    before = [False] * 6 + [True] + [True] * 5 + [False] * 8
    after = [True] * 6 + [False] + [True] * 5 + [False] * 8
    estimate = gain(before, after)
    assert estimate.mean == 0.25
    assert estimate.n == 20
    assert estimate.ci95 == pytest.approx((-0.00613, 0.46067), abs=1e-4)


def test_pairing_is_worth_more_than_two_separate_intervals() -> None:
    before, after = [True, False] * 100, [True, False] * 90 + [True, True] * 10
    low, high = gain(before, after).ci95
    apart = proportion(before).ci95, proportion(after).ci95
    assert apart[0][1] > apart[1][0], "the separate intervals overlap"
    assert 0 < low < high < 0.1, "the paired one excludes zero"


def test_no_change_at_all_still_has_a_width() -> None:
    # n = 8: reach 1.96 * sqrt(1) / 10; of the asymmetry, whose pseudo-values have twice the mean square, 1.96 * sqrt(2) / 10.
    assert gain([True] * 8, [True] * 8).ci95 == pytest.approx((-0.196, 0.196), abs=1e-4)
    assert change([0.0] * 8, reach=2.0).ci95 == pytest.approx((-0.2772, 0.2772), abs=1e-4)


def test_graded_gains_use_the_differences() -> None:
    # Ten differences of .25: centre 10 * .25 / 12 = .20833, reach 1.96 sqrt(10 * .0625 + 1 - 12 * .20833^2) / 12 = .17163.
    before = [index / 10 for index in range(10)]
    estimate = gain(before, [value + 0.25 for value in before])
    assert estimate.mean == pytest.approx(0.25)
    assert estimate.ci95 == pytest.approx((0.03670, 0.37996), abs=1e-4)


def test_a_gain_over_different_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="the same samples before and after, got 2 and 3"):
        gain([True, True], [True, True, False])


def test_values_of_puzzles_of_their_own_have_the_ordinary_intervals() -> None:
    verdicts, graded, own = [True, False, True, True, None], [0.1, 0.5, 0.9, 0.2, None], list("abcde")
    assert proportion(verdicts, own) == proportion(verdicts)
    assert proportion(graded, own) == proportion(graded)
    assert gain([False] * 5, verdicts, own) == gain([False] * 5, verdicts)


def test_a_puzzle_that_is_asked_again_and_answered_alike_is_no_news() -> None:
    # Ten puzzles, six right; each in four samples. Their variance by puzzles is 10/9 * 4^2 * 2.4, by values 40/39 * 4 * 2.4:
    # the design effect is 4 * (10/9) / (40/39) = 13/3, so 40 values are worth 120/13 = 9.23, and with the quantiles of 39 and 9 degrees
    # of freedom 120/13 * (2.0227 / 2.2622)^2 = 7.380.
    once, puzzles = [True] * 6 + [False] * 4, [index // 4 for index in range(40)]
    four_times = proportion([once[puzzle] for puzzle in puzzles], puzzles)
    z2, n, share = Z95**2, 7.380, 0.6
    centre, reach = (n * share + z2 / 2) / (n + z2), Z95 * math.sqrt(n * share * (1 - share) + z2 / 4) / (n + z2)
    assert four_times.mean == pytest.approx(share)
    assert four_times.n == 40
    assert four_times.ci95 == pytest.approx((centre - reach, centre + reach), abs=1e-4)
    assert gain([False] * 40, [once[puzzle] for puzzle in puzzles], puzzles).ci95[0] < gain([False] * 40, once * 4).ci95[0]


def test_puzzles_that_are_answered_now_so_now_so_cost_next_to_nothing() -> None:
    # The effective sample size stays 40 but for the quantiles: 40 * (t of 39 / t of 19)^2 = 40 * (2.0227 / 2.0930)^2 = 37.4.
    values, puzzles = [True, False] * 20, [index // 2 for index in range(40)]  # Each puzzle once right and once wrong.
    measured = statistics._measured(values, puzzles, None)
    assert statistics.spread(measured).size == pytest.approx(37.36, abs=0.01)


def test_where_all_are_right_a_puzzle_counts_once() -> None:
    assert proportion([True] * 12, [0, 1, 2] * 4).ci95 == proportion([True] * 3).ci95
    assert proportion([True] * 6, [0, 1, 2] * 2, [0, 0, 0, 1, 1, 1]).ci95 == proportion([True] * 3).ci95, "whatever the seeds"
    low, high = proportion([True, False] * 6, [0] * 12).ci95
    assert high - low > 0.75, "one puzzle carries almost no information about others"


def test_seeds_that_agree_on_every_puzzle_are_one_model() -> None:
    # Variance over puzzles as of one seed, none over seeds: 16 values are worth 8 (7 * 16 / 15), apart from the quantiles.
    verdicts = [True, False, True, True, False, False, True, False]
    size = statistics.spread(statistics._measured(verdicts * 2, [*range(8)] * 2, [0] * 8 + [1] * 8)).size
    assert size == pytest.approx(16 * 7 / 15 * (student(15) / student(7)) ** 2)


def test_seeds_that_differ_widen_the_interval() -> None:
    # Two seeds of 8 puzzles: .25 and .75 right. Variance over seeds: .125 / 2 = .0625; the puzzles agree on nothing else.
    first, second = [True] * 2 + [False] * 6, [True] * 6 + [False] * 2
    puzzles, seeds = [*range(8)] * 2, [0] * 8 + [1] * 8
    alike = proportion([*first, *[False] * 6, *[True] * 2], puzzles, seeds)
    apart = proportion([*first, *second], puzzles, seeds)
    assert apart.mean == 0.5
    assert apart.n == 8, "test samples, whatever the number of seeds"
    assert apart.ci95[1] - apart.ci95[0] > 1.5 * (alike.ci95[1] - alike.ci95[0])


def test_seeds_that_differ_widen_the_interval_also_where_each_answered_puzzles_of_its_own() -> None:
    verdicts, seeds = [True] * 50 + [False] * 50, [0] * 50 + [1] * 50
    apart = proportion(verdicts, list(range(100)), seeds)
    assert apart.ci95[1] - apart.ci95[0] > 0.9, "one seed solves all and the other none: a third may do anything"
    mixed = [True, False] * 50
    alike, one_seed = proportion(mixed, list(range(100)), seeds), proportion(mixed, list(range(100)))
    assert alike.ci95[1] - alike.ci95[0] == pytest.approx(one_seed.ci95[1] - one_seed.ci95[0], abs=0.02)


@pytest.mark.parametrize("freedom", [1, 1.1, 1.5, 2, 2.7, 3, 4.5, 9, 30, 120, 5000, 2e5])
def test_quantiles_of_student_are_those_of_scipy(freedom: float) -> None:
    from scipy.special import stdtrit

    assert student(freedom) == pytest.approx(float(stdtrit(freedom, 0.975)), rel=2e-5)


@pytest.mark.parametrize(("right", "n"), [(0, 4), (1, 4), (3, 9), (50, 200), (200, 200)])
def test_wilson_is_that_of_statsmodels(right: int, n: int) -> None:
    from statsmodels.stats.proportion import proportion_confint

    assert proportion([True] * right + [False] * (n - right)).ci95 == pytest.approx(
        proportion_confint(right, n, method="wilson"), abs=1e-12
    )


def test_the_variance_over_puzzles_is_the_clustered_one_of_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    puzzles = rng.integers(0, 12, size=60)
    values = (rng.random(60) < 0.3 + 0.4 * (puzzles % 2)).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = sm.OLS(values, np.ones((60, 1))).fit(cov_type="cluster", cov_kwds={"groups": puzzles, "df_correction": True})
    variance = float(fitted.cov_params()[0, 0]) * (60 - 1) / (60 - 1)
    found = statistics.spread(statistics._measured(list(values), list(puzzles), None))
    naive = (found.square - found.mean**2) / 59
    ours = naive * 60 / found.size * (student(59) / student(len(set(puzzles)) - 1)) ** 2
    # statsmodels multiplies G / (G - 1) by (n - 1) / (n - k), which is 1 for a mean.
    assert ours == pytest.approx(variance, rel=1e-9)
