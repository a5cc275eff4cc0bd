"""VPPO and VIG against the formulas written another way: torch loops for VPPO, perplexities for VIG."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from percasym.config.schema import ConfigError, build
from percasym.rewards.pictures import read_pixels
from percasym.tasks.sudoku.task import Sudoku
from percasym.tokens.vig import Vig
from percasym.tokens.vppo import Vppo
from percasym.types import SampleKey


def responses(seed: int, num: int = 9):
    rng = np.random.default_rng(seed)
    own = [-rng.exponential(0.7, size=int(rng.integers(5, 40))) for _ in range(num)]
    return own, [row + rng.normal(-0.4, 0.8, size=row.size) for row in own]


def weighed(method, own, without):
    gains = [method.gains(a, b) for a, b in zip(own, without, strict=True)]
    means, sizes = np.array([one.mean() for one in gains]), np.array([float(one.size) for one in gains])
    return [method.factors(one, means, sizes) for one in gains]


def vppo_oracle(own, without, top_frac: float, floor: float):
    """arXiv:2510.09285 token by token, on padded tensors: KL estimates, a sort, a scatter; then the scale of each row."""
    longest = max(map(len, own))
    pad = lambda rows: torch.tensor([[*row, *[0.0] * (longest - len(row))] for row in rows], dtype=torch.float64)
    old, masked, mask = pad(own), pad(without), torch.tensor([[i < len(row) for i in range(longest)] for row in own])
    ratio = torch.exp((masked - old).clamp(-20, 20))
    kl = (ratio - torch.log(ratio) - 1).clamp(0, 10)
    kept = torch.zeros_like(kl)
    for row in range(len(own)):
        count = int(mask[row].sum())
        best = sorted(range(count), key=lambda t: -float(kl[row, t]))[: math.ceil(count * top_frac)]
        kept[row, best] = 1.0
    score = (kl * mask).sum(1) / mask.sum(1)
    unit = (score - score.min()) / (score.max() - score.min())
    top = floor + (1 - floor) / unit.mean()
    return [(kept[row] * (floor + unit[row] * (top - floor)))[: len(own[row])].numpy() for row in range(len(own))]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("top_frac", "floor"), [(0.2, 0.8), (0.4, 0.9), (1.0, 0.0)])
def test_vppo_is_its_formula(seed: int, top_frac: float, floor: float) -> None:
    own, without = responses(seed)
    found, expected = weighed(Vppo(top_frac=top_frac, floor=floor), own, without), vppo_oracle(own, without, top_frac, floor)
    assert all(np.allclose(one, other, atol=1e-9) for one, other in zip(found, expected, strict=True))
    scales = [one.max() for one in found]
    assert np.mean(scales) == pytest.approx(1.0)
    assert min(scales) == pytest.approx(floor)


def test_vppo_trains_a_fifth_of_the_tokens_by_default() -> None:
    own, without = responses(0)
    assert [int((one > 0).sum()) for one in weighed(Vppo(), own, without)] == [math.ceil(len(row) / 5) for row in own]


def test_vppo_scales_nothing_where_all_rollouts_depend_alike() -> None:
    own, without = [np.array([-1.0, -2.0])] * 3, [np.array([-2.0, -2.0])] * 3
    assert all(one.tolist() == [1.0, 0.0] for one in weighed(Vppo(top_frac=0.5), own, without))


def test_vppo_blackens_half_of_the_squares_alike_for_all_rollouts_of_a_prompt() -> None:
    prompt = Sudoku().sample(SampleKey(task="sudoku", split="train_rl", seed=0, index=3)).prompt
    before, after = (read_pixels(one.image) for one in (prompt, Vppo(patch_px=8).without(prompt)))
    squares = [after[top : top + 8, left : left + 8] for top in range(0, len(after), 8) for left in range(0, len(after), 8)]
    black = [not square.any() for square in squares]
    assert 0.3 < np.mean(black) < 0.7
    same = [np.allclose(square, before[8 * (i // 8) : 8 * (i // 8) + 8, 8 * (i % 8) : 8 * (i % 8) + 8]) for i, square in enumerate(squares)]
    assert all(kept or gone for kept, gone in zip(same, black, strict=True))
    assert Vppo(black_prob=0.0).without(prompt).image is not None
    assert np.allclose(read_pixels(Vppo(black_prob=0.0).without(prompt).image), before)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_vig_weighs_by_the_fall_in_perplexity_and_averages_one(seed: int, floor: float) -> None:
    own, without = responses(seed)
    found = weighed(Vig(floor=floor), own, without)
    # log(perplexity without / perplexity with) of each token, where it is above 0.
    pairs = [list(zip(x, y, strict=True)) for x, y in zip(own, without, strict=True)]
    falls = [[max(0.0, math.log(math.exp(-b) / math.exp(-a))) for a, b in row] for row in pairs]
    mean = sum(map(sum, falls)) / sum(map(len, falls))
    assert all(np.allclose(one, floor + (1 - floor) * np.array(fall) / mean) for one, fall in zip(found, falls, strict=True))
    assert np.concatenate(found).mean() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("cls", "options", "sentence"),
    [
        (Vppo, {"top_frac": 0.0}, "tokens.top_frac must be above 0"),
        (Vppo, {"floor": 1.5}, "tokens.floor must lie in"),
        (Vppo, {"patch_px": 0}, "tokens.patch_px must be at least 1"),
        (Vig, {"floor": -0.1}, "tokens.floor must lie in"),
    ],
)
def test_wrong_options_are_one_sentence(cls: type, options: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(cls, options, "tokens")
