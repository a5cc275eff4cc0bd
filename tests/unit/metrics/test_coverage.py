"""The 95 % intervals contain the truth in 93 to 97 % of simulated studies; docs/statistics.md has the table.

Every study has truths of its own: the accuracies before training, without and with balancing are uniform between 5 and 95 %. Puzzles differ
in difficulty, for all models alike and for each of its own; the seeds of a cell differ by 3 points (standard deviation). The estimates are
those of the package, one call for each quantity.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from percasym.statistics import change, gain, proportion
from percasym.types import Estimate

STUDIES = 2000
SEED_DEVIATION = 0.03
COMMON, OWN = 0.5, 0.2
"""Parts of the variance of a latent score that a puzzle has in all models, and in one model; the rest is the picture's."""
QUANTILE = NormalDist().inv_cdf
MODELS = ("before", "none", "ngdiff")


def simulated(rng: np.random.Generator, puzzles: np.ndarray, num_seeds: int) -> tuple[dict, dict]:
    """True accuracies, and verdicts [seeds, samples], by metric and model. Before training all seeds are one model."""
    truths, verdicts, num_puzzles = {}, {}, puzzles.max() + 1
    for metric in ("perception", "reasoning"):
        difficulty = rng.normal(size=num_puzzles)[puzzles]
        for model in MODELS:
            truth, seeds = rng.uniform(0.05, 0.95), 1 if model == "before" else num_seeds
            accuracies = [truth] * seeds
            if seeds > 1:  # Beta with this mean and deviation: its mean over seeds is the truth exactly.
                strength = truth * (1 - truth) / SEED_DEVIATION**2 - 1
                accuracies = rng.beta(truth * strength, (1 - truth) * strength, size=seeds)
            own = rng.normal(size=(seeds, num_puzzles))[:, puzzles]
            latent = COMMON**0.5 * difficulty + OWN**0.5 * own + (1 - COMMON - OWN) ** 0.5 * rng.normal(size=(seeds, len(puzzles)))
            thresholds = np.array([QUANTILE(min(max(accuracy, 1e-9), 1 - 1e-9)) for accuracy in accuracies])
            truths[metric, model] = truth
            verdicts[metric, model] = np.repeat(latent < thresholds[:, None], num_seeds // seeds, axis=0)
    return truths, verdicts


def estimates(truths: dict, verdicts: dict, puzzles: list[int], seeds: list[int]) -> dict[str, tuple[Estimate, float]]:
    """Each quantity of a report: its estimate and its truth."""
    flat = {name: values.ravel().tolist() for name, values in verdicts.items()}
    before, none, ngdiff = (flat["perception", model] for model in MODELS)
    float_of = {name: values.ravel().astype(float) for name, values in verdicts.items()}
    gains = {metric: float_of[metric, "none"] - float_of[metric, "before"] for metric in ("perception", "reasoning")}
    true_gains = {metric: truths[metric, "none"] - truths[metric, "before"] for metric in gains}
    graded = (float_of["perception", "none"] + float_of["reasoning", "none"]) / 2
    true_none = truths["perception", "none"]
    return {
        "proportion": (proportion(none, puzzles, seeds), true_none),
        "graded mean": (proportion(graded.tolist(), puzzles, seeds), (true_none + truths["reasoning", "none"]) / 2),
        "gain": (gain(before, none, puzzles, seeds), true_gains["perception"]),
        "paired difference": (gain(none, ngdiff, puzzles, seeds), truths["perception", "ngdiff"] - true_none),
        "asymmetry": (
            change((gains["reasoning"] - gains["perception"]).tolist(), puzzles, seeds, reach=2.0),
            true_gains["reasoning"] - true_gains["perception"],
        ),
    }


def coverage(num_samples: int, num_puzzles: int, num_seeds: int, studies: int = STUDIES) -> dict[str, float]:
    """Share of the studies in which each interval contains its truth, in percent."""
    rng, held = np.random.default_rng([num_samples, num_puzzles, num_seeds]), {}
    order = np.arange(num_samples) % num_puzzles
    puzzles, seeds = order.tolist() * num_seeds, np.repeat(np.arange(num_seeds), num_samples).tolist()
    for _ in range(studies):
        for name, (found, truth) in estimates(*simulated(rng, order, num_seeds), puzzles, seeds).items():
            held[name] = held.get(name, 0) + (found.ci95[0] <= truth <= found.ci95[1])
    return {name: 100 * count / studies for name, count in held.items()}


@pytest.mark.parametrize(
    ("num_samples", "num_puzzles", "num_seeds"),
    [(4, 4, 1), (8, 8, 1), (16, 16, 1), (64, 64, 1), (64, 16, 1), (64, 64, 2), pytest.param(64, 64, 3, marks=pytest.mark.slow)],
)
def test_intervals_contain_the_truth_in_93_to_97_percent_of_studies(num_samples: int, num_puzzles: int, num_seeds: int) -> None:
    found = coverage(num_samples, num_puzzles, num_seeds)
    assert len(found) == 5
    assert {name: share for name, share in found.items() if not 93 <= share <= 97} == {}


def test_intervals_that_ignored_puzzles_or_seeds_would_be_noticed() -> None:
    rng, held = np.random.default_rng(0), dict.fromkeys(("puzzles", "seeds"), 0)
    order = np.arange(64) % 16
    for _ in range(400):
        truths, verdicts = simulated(rng, order, 3)
        none, truth = verdicts["perception", "none"], truths["perception", "none"]
        first = proportion(none[0].tolist())  # One seed, every sample a puzzle of its own.
        all_seeds = proportion(none.ravel().tolist(), [*range(64)] * 3)  # The seeds as if they were one model asked three times.
        held["puzzles"] += first.ci95[0] <= truth <= first.ci95[1]
        held["seeds"] += all_seeds.ci95[0] <= truth <= all_seeds.ci95[1]
    assert held["puzzles"] < 0.9 * 400
    assert held["seeds"] < 0.9 * 400
