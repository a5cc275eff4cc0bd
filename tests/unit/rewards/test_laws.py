"""What every reward obeys, on both tasks; a new conf/reward/*.yaml is tested with no edit."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from percasym.rewards.base import Labelled
from percasym.rewards.registry import REWARDS
from percasym.types import Grade, SampleKey

CONF = Path(__file__).parents[3] / "conf" / "reward"


def target(name: str) -> Any:
    module, _, kind = yaml.safe_load((CONF / f"{name}.yaml").read_text())["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), kind)


NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
SURROGATES = [name for name in NAMES if hasattr(target(name), "score")]
each_reward = pytest.mark.parametrize("name", NAMES)
each_surrogate = pytest.mark.parametrize("name", SURROGATES)


@pytest.fixture
def groups(task: Any, sample: Any, rollout: Any) -> Any:
    """Three prompts, each answered rightly, as another prompt, faithfully but wrongly, with a slip, in no form, and cut off."""
    samples = [sample(task, index) for index in range(3)]
    made = []
    for here, other in zip(samples, samples[1:] + samples[:1], strict=True):
        right, wrong = (s.demonstration.perception + s.demonstration.reasoning for s in (here, other))
        mixed = here.demonstration.perception + other.demonstration.reasoning
        logprobs = [(-0.1 * i, -0.3) for i in range(1, 6)]
        texts = [right, wrong, right, mixed, "no form"]
        made.append([rollout(here.prompt, text, logprobs=logprob) for text, logprob in zip(texts, logprobs, strict=True)])
        made[-1].append(rollout(here.prompt, right[: len(right) // 2], finished=False))
    return made


@pytest.fixture
def asked(task: Any, sample: Any, moody: Any, scene: Any) -> Any:
    """`asked(reward)`: a scene that answers what the reward says it asks, from the labels of `task`, and nothing more."""

    def make(reward: Any, of: Any = task) -> Any:
        samples = [sample(task, index) for index in range(3)]
        answers = {s.prompt: s.truth for s in samples}
        allowed = {}
        if reward.asks_outcome:
            allowed["right"] = lambda prompt, answer: task.verify(answers[prompt], answer)
        if reward.asks_policy:
            allowed["policy"] = moody(*(s.demonstration.perception + s.demonstration.reasoning for s in samples))
        return scene(of, **allowed)

    return make


@each_reward
def test_a_reward_is_a_frozen_dataclass_that_names_its_source_and_its_weakness(name: str, reward: Any) -> None:
    cls = type(reward(name))
    assert is_dataclass(cls) and cls.__dataclass_params__.frozen and cls.__slots__ is not None
    assert "Source: " in cls.__doc__ and "Assumes " in cls.__doc__
    assert not {"asks_outcome", "asks_policy"} & {field.name for field in fields(cls)}  # Not options of the yaml.


@each_reward
def test_the_yaml_opens_with_a_title_that_has_a_source_and_a_command(name: str) -> None:
    title, command, *_ = (CONF / f"{name}.yaml").read_text().splitlines()
    assert title.startswith("# ") and title.endswith((".", ".)"))
    assert "arXiv:" in title or "Our form" in title
    assert f"reward={name}" in command and "paradigm=rl" in command


def test_every_reward_of_a_yaml_stands_on_the_shelf_under_its_name() -> None:
    assert {name: target(name) for name in NAMES} == REWARDS


def test_a_label_is_read_by_the_oracle_alone() -> None:
    assert [name for name in NAMES if isinstance(target(name), Labelled)] == ["oracle"]


@pytest.mark.parametrize("grading", ["exact", "graded"])
def test_the_oracle_stays_in_the_unit_interval(reward: Any, grading: str) -> None:
    grades = [
        Grade(perception=exact, perception_graded=graded, outcome=True, faithful=None, faults=())
        for exact, graded in ((True, 1.0), (False, 0.75), (False, 0.0))
    ]
    assert [reward("oracle", grading=grading).of(grade) for grade in grades] == ([1, 0, 0] if grading == "exact" else [1, 0.75, 0])


@each_surrogate
def test_scores_have_the_shape_of_the_groups_and_lie_in_the_unit_interval(name: str, reward: Any, groups: Any, asked: Any) -> None:
    scores = reward(name).score(groups, asked(reward(name)))
    assert [len(row) for row in scores] == [len(group) for group in groups]
    assert all(score is None or 0 <= score <= 1 for row in scores for score in row)
    assert len({score for row in scores for score in row}) > 1, "a reward that is the same for all says nothing"
    assert reward(name).score([], asked(reward(name))) == []
    assert reward(name).score([[]], asked(reward(name))) == [[]]


@each_surrogate
def test_the_same_rollouts_earn_the_same_in_any_order(name: str, reward: Any, groups: Any, asked: Any) -> None:
    one = reward(name)
    scores = one.score(groups, asked(one))
    assert one.score(groups, asked(one)) == scores
    for seed in range(3):
        rng = Random(seed)
        order = rng.sample(range(len(groups)), len(groups))
        places = [rng.sample(range(len(groups[g])), len(groups[g])) for g in order]
        moved = [[groups[g][i] for i in place] for g, place in zip(order, places, strict=True)]
        assert one.score(moved, asked(one)) == [[scores[g][i] for i in place] for g, place in zip(order, places, strict=True)]


# No surrogate sees the percept label


class Shifted:
    """A task that gives each key the puzzle of another one: the same pictures then have another p*."""

    def __init__(self, task: Any, shift: int) -> None:
        self.task, self.shift = task, shift

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def truth(self, key: SampleKey) -> str:
        return self.task.truth(SampleKey(task=key.task, split=key.split, seed=key.seed, index=key.index + self.shift))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheat:
    """Scores by the label, through a scene that lets it."""

    asks_outcome = False
    asks_policy = False

    def score(self, groups: Any, scene: Any) -> Any:
        return [[float(scene.skills.truth(rollout.prompt.key) == rollout.response.percept) for rollout in group] for group in groups]


@each_surrogate
def test_another_truth_behind_the_scene_changes_no_score(name: str, reward: Any, task: Any, groups: Any, asked: Any) -> None:
    one = reward(name)
    assert one.score(groups, asked(one, Shifted(task, 0))) == one.score(groups, asked(one, Shifted(task, 1)))


def test_a_reward_that_looks_at_the_truth_is_found_out(task: Any, groups: Any, asked: Any) -> None:
    with pytest.raises(AttributeError, match="truth"):
        Cheat().score(groups, asked(Cheat(), Shifted(task, 0)))
    open_scenes = [type("Open", (), {"skills": Shifted(task, shift)}) for shift in (0, 1)]
    assert Cheat().score(groups, open_scenes[0]) != Cheat().score(groups, open_scenes[1])


@each_surrogate
def test_a_reward_asks_for_what_it_declares(name: str, reward: Any, task: Any, groups: Any, asked: Any, scene: Any) -> None:
    # The scene of `asked` refuses all that is not declared (the tests above would fail); here all is refused.
    one = reward(name)
    if one.asks_outcome or one.asks_policy:
        with pytest.raises(AssertionError, match="did not say that it asks"):
            one.score(groups, scene(task))
    else:
        one.score(groups, scene(task))


@each_surrogate
def test_who_asks_for_outcomes_listens_to_them(name: str, reward: Any, task: Any, groups: Any, asked: Any, scene: Any) -> None:
    one = reward(name)
    if one.asks_outcome:
        deaf = scene(task, right=lambda prompt, answer: False, policy=asked(one).policy)
        assert {score for row in one.score(groups, deaf) for score in row} == {0.0}
