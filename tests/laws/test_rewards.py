"""What every reward obeys, on both tasks; a new conf/reward/*.yaml is tested with no edit, one of another package by PERCASYM_CONF."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass
from random import Random
from typing import Any

import pytest

from percasym.config.document import plugin_files, target
from percasym.rewards.base import Labelled
from percasym.rewards.registry import measured_rewards, packaged_rewards
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Grade, SampleKey
from tests.laws.plugins import ROOT, files, made

FILES = files("reward")
PACKAGED = {path.stem: path for path in plugin_files(ROOT / "conf", "reward")}
NAMES = sorted(FILES)
SURROGATES = [name for name in NAMES if hasattr(target(FILES[name]), "score")]
each_reward = pytest.mark.parametrize("name", NAMES)
each_surrogate = pytest.mark.parametrize("name", SURROGATES)


@pytest.fixture
def reward() -> Any:
    """`reward("consensus", vote="majority")`: the reward of a yaml with the values it states."""
    return lambda name, **options: made(FILES[name] if name in FILES else ROOT / "conf" / "reward" / f"{name}.yaml", **options)


@pytest.fixture
def groups(task: Any, sample: Any, rollout: Any) -> Any:
    """Three prompts, each answered rightly, as another prompt, faithfully but wrongly, with a slip, in no form, and cut off."""
    samples = [sample(task, index) for index in range(3)]
    answered = []
    for here, other in zip(samples, samples[1:] + samples[:1], strict=True):
        right, wrong = (s.demonstration.perception + s.demonstration.reasoning for s in (here, other))
        mixed = here.demonstration.perception + other.demonstration.reasoning
        logprobs = [(-0.1 * i, -0.3) for i in range(1, 6)]
        texts = [right, wrong, right, mixed, "no form"]
        answered.append([rollout(here.prompt, text, logprobs=logprob) for text, logprob in zip(texts, logprobs, strict=True)])
        answered[-1].append(rollout(here.prompt, right[: len(right) // 2], finished=False))
    return answered


@pytest.fixture
def allowed(task: Any, sample: Any, hash_policy: Any, context: Any) -> Any:
    """`allowed(reward)`: a context with what the reward declares, from the labels of `task`, and nothing more."""

    def make(reward: Any, of: Any = task) -> Any:
        samples = [sample(task, index) for index in range(3)]
        answers = {s.prompt: s.truth for s in samples}
        given = {}
        if reward.needs_outcome:
            given["right"] = lambda prompt, answer: task.verify(answers[prompt], answer)
        if reward.needs_policy:
            given["policy"] = hash_policy(*(s.demonstration.perception + s.demonstration.reasoning for s in samples))
        return context(of, skills=("parse", "agreement", *getattr(reward, "requires", ())), **given)

    return make


@each_reward
def test_a_reward_is_a_frozen_dataclass_that_names_its_source_and_its_weakness(name: str, reward: Any) -> None:
    cls = type(reward(name))
    assert is_dataclass(cls) and cls.__dataclass_params__.frozen and cls.__slots__ is not None
    assert "Source: " in cls.__doc__ and "Assumes " in cls.__doc__
    assert not {"needs_outcome", "needs_policy"} & {field.name for field in fields(cls)}  # Not options of the yaml.


@each_reward
def test_the_yaml_opens_with_a_title_that_has_a_source_and_a_command(name: str) -> None:
    title, command, *_ = FILES[name].read_text().splitlines()
    assert title.startswith("# ") and title.endswith((".", ".)"))
    assert "arXiv:" in title or "Our form" in title
    assert f"reward={name}" in command and "paradigm=rl" in command


def test_every_reward_of_a_yaml_is_discovered_under_its_name() -> None:
    assert {name: target(path) for name, path in PACKAGED.items()} == packaged_rewards()


def test_rewards_that_read_labels_come_first_and_the_others_by_name() -> None:
    assert list(packaged_rewards()) == ["oracle", *sorted(set(PACKAGED) - {"oracle"})]


def test_a_chosen_reward_of_another_package_is_measured_under_its_class_name() -> None:
    name, rewards = measured_rewards(Cheat(), Sudoku())
    assert name == "Cheat"
    assert rewards == {other: cls() for other, cls in packaged_rewards().items()} | {"Cheat": Cheat()}


def test_the_registry_loads_no_deep_learning_library() -> None:
    lines = "from percasym.rewards import registry; registry.packaged_rewards(); import sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout.split() == ["False"]


def test_a_label_is_read_by_the_oracle_alone() -> None:
    assert [name for name, path in PACKAGED.items() if isinstance(target(path), Labelled)] == ["oracle"]


@pytest.mark.parametrize("grading", ["exact", "graded"])
def test_the_oracle_stays_in_the_unit_interval(reward: Any, grading: str) -> None:
    grades = [
        Grade(perception=exact, perception_graded=graded, outcome=True, faithful=None, faults=())
        for exact, graded in ((True, 1.0), (False, 0.75), (False, 0.0))
    ]
    assert [reward("oracle", grading=grading).score_grade(grade) for grade in grades] == ([1, 0, 0] if grading == "exact" else [1, 0.75, 0])


@each_surrogate
def test_scores_have_the_shape_of_the_groups_and_lie_in_the_unit_interval(name: str, reward: Any, groups: Any, allowed: Any) -> None:
    scores = reward(name).score(groups, allowed(reward(name)))
    assert [len(row) for row in scores] == [len(group) for group in groups]
    assert all(score is None or 0 <= score <= 1 for row in scores for score in row)
    assert len({score for row in scores for score in row}) > 1, "a reward that is the same for all carries no information"
    assert reward(name).score([], allowed(reward(name))) == []
    assert reward(name).score([[]], allowed(reward(name))) == [[]]


@each_surrogate
def test_scores_do_not_depend_on_the_order_of_rollouts(name: str, reward: Any, groups: Any, allowed: Any) -> None:
    one = reward(name)
    scores = one.score(groups, allowed(one))
    assert one.score(groups, allowed(one)) == scores
    for seed in range(3):
        rng = Random(seed)
        order = rng.sample(range(len(groups)), len(groups))
        places = [rng.sample(range(len(groups[g])), len(groups[g])) for g in order]
        moved = [[groups[g][i] for i in place] for g, place in zip(order, places, strict=True)]
        assert one.score(moved, allowed(one)) == [[scores[g][i] for i in place] for g, place in zip(order, places, strict=True)]


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
    """Scores by the label, through a context that lets it."""

    needs_outcome = False
    needs_policy = False

    def score(self, groups: Any, context: Any) -> Any:
        return [[float(context.skills.truth(rollout.prompt.key) == rollout.response.percept) for rollout in group] for group in groups]


@each_surrogate
def test_another_truth_behind_the_context_changes_no_score(name: str, reward: Any, task: Any, groups: Any, allowed: Any) -> None:
    one = reward(name)
    assert one.score(groups, allowed(one, Shifted(task, 0))) == one.score(groups, allowed(one, Shifted(task, 1)))


def test_a_reward_that_reads_the_truth_is_detected(task: Any, groups: Any, allowed: Any) -> None:
    with pytest.raises(AttributeError, match="truth"):
        Cheat().score(groups, allowed(Cheat(), Shifted(task, 0)))
    open_contexts = [type("Open", (), {"skills": Shifted(task, shift)}) for shift in (0, 1)]
    assert Cheat().score(groups, open_contexts[0]) != Cheat().score(groups, open_contexts[1])


@each_surrogate
def test_a_reward_uses_only_what_it_declares(name: str, reward: Any, task: Any, groups: Any, allowed: Any, context: Any) -> None:
    # The context of `allowed` refuses all that is not declared (the tests above would fail); here all is refused.
    one = reward(name)
    if one.needs_outcome or one.needs_policy:
        with pytest.raises(AssertionError, match="did not declare this"):
            one.score(groups, context(task))
    else:
        one.score(groups, context(task))


@each_surrogate
def test_a_reward_that_needs_outcomes_depends_on_them(name: str, reward: Any, task: Any, groups: Any, allowed: Any, context: Any) -> None:
    one = reward(name)
    if one.needs_outcome:
        never_right = context(task, right=lambda prompt, answer: False, policy=allowed(one).policy)
        assert {score for row in one.score(groups, never_right) for score in row} == {0.0}
