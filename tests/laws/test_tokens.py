"""What every weight of single tokens obeys; a new conf/tokens/*.yaml is tested with no edit, one of another package by PERCASYM_CONF."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from percasym.rewards.pictures import read_pixels
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import SampleKey
from tests.laws.plugins import files, made

FILES = files("tokens")
NAMES = sorted(FILES)
each = pytest.mark.parametrize("name", NAMES)


def prompt(index: int = 0):
    return Sudoku().sample(SampleKey(task="sudoku", split="test", seed=0, index=index)).prompt


def step(seed: int, num: int = 12):
    """Log-probabilities of responses of unlike length, with and without the picture."""
    rng = np.random.default_rng(seed)
    own = [-rng.exponential(0.5, size=int(rng.integers(1, 40))) for _ in range(num)]
    return own, [row - np.maximum(0.0, rng.normal(0.3, 0.5, size=row.size)) for row in own]


def weighed(method, own, without):
    gains = [method.gains(a, b) for a, b in zip(own, without, strict=True)]
    means, sizes = np.array([one.mean() for one in gains]), np.array([float(one.size) for one in gains])
    return [method.factors(one, means, sizes) for one in gains]


@each
def test_a_method_is_a_frozen_dataclass_that_names_its_source_and_its_weakness(name: str) -> None:
    cls = type(made(FILES[name]))
    assert is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert "Source: " in cls.__doc__ and "Assumes " in cls.__doc__ and "arXiv:" in cls.__doc__
    assert cls.paradigm in ("rl", "sft")
    assert "paradigm" not in {field.name for field in fields(cls)}  # Not an option of the yaml.


@each
def test_the_yaml_opens_with_a_title_that_has_a_source_and_a_command(name: str) -> None:
    title, command, *_ = FILES[name].read_text().splitlines()
    assert title.startswith("# ") and "arXiv:" in title
    assert f"tokens={name}" in command and f"paradigm={made(FILES[name]).paradigm}" in command


@each
@pytest.mark.parametrize("seed", range(5))
def test_factors_are_finite_not_negative_one_for_each_token_and_average_about_one(name: str, seed: int) -> None:
    own, without = step(seed)
    found = weighed(made(FILES[name]), own, without)
    assert [one.shape for one in found] == [row.shape for row in own]
    assert all(np.isfinite(one).all() and (one >= 0).all() for one in found)
    assert any(one.any() for one in found)


@each
def test_the_order_of_responses_changes_no_factor(name: str) -> None:
    own, without = step(3)
    method, order = made(FILES[name]), np.random.default_rng(0).permutation(12)
    there, back = weighed(method, own, without), weighed(method, [own[i] for i in order], [without[i] for i in order])
    assert all(np.allclose(back[place], there[i]) for place, i in enumerate(order))


@each
def test_responses_that_gain_nothing_from_the_picture_train_as_always(name: str) -> None:
    own, _ = step(4)
    assert all(one.max() == 1.0 for one in weighed(made(FILES[name]), own, own))


@each
def test_the_masked_picture_has_the_size_of_the_original_is_another_one_and_the_same_each_time(name: str) -> None:
    method, one = made(FILES[name]), prompt()
    masked = method.without(one)
    assert replace(masked, image=None) == replace(one, image=None)
    before, after = read_pixels(one.image), read_pixels(masked.image)
    assert before.shape == after.shape
    assert np.abs(before - after).max() > 0.2
    assert method.without(one) == masked
    assert method.without(replace(one, image=None)) == replace(one, image=None)
