"""Collection of an RL step: which prompts are sampled, and which groups dynamic sampling replaces."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from percasym.config.paradigm import Rl
from percasym.rewards.oracle import Oracle
from percasym.training.collect import RolloutCollector
from percasym.types import Completion, Grade, Prompt, Sample, Span

VERDICTS = {
    "failing": ([True, False, True, False], [False, False, False, False]),
    "solved": ([True, False, True, False], [True, True, True, True]),
    "seen alike": ([True, True, True, True], [True, False, False, False]),
    "cancelling": ([True, False, True, False], [False, True, False, True]),
}
"""Name of a prompt -> a_p and a of its four rollouts."""


class OneRank:
    """The part of an engine that sampling uses."""

    rank, num_ranks = 0, 1

    @contextmanager
    def gathered_weights(self):
        yield None

    def all_reduce_sum(self, values):
        return values


class Prompts:
    """A task whose prompts have the kinds of VERDICTS given, in the order of their index; the rest are `seen alike`."""

    name = "prompts"

    def __init__(self, kinds) -> None:
        self.kinds, self.drawn = kinds, []

    def sample(self, key):
        self.drawn.append(key.index)
        image = b"picture"
        kind = self.kinds[key.index] if key.index < len(self.kinds) else "seen alike"
        return Sample(prompt=Prompt(key=key, image=image, question="?"), truth=kind, demonstration=None, solution="")


class FourRollouts:
    """A rollout engine that gives each prompt the four rollouts of its kind."""

    streams = False

    def refresh(self, model, gather=None):
        pass

    def release(self):
        pass

    def generate(self, prompts, *, group_size, seed, prompt_rows=None, forced=None, advance=lambda rows: None):
        completion = Completion(ids=(1, 2), logprobs=(-1.0, -1.0), finished=True)
        return [
            [SimpleNamespace(prompt=prompt, sibling=i, completion=completion, labels=(Span.perception, Span.reasoning)) for i in range(4)]
            for prompt in prompts
        ]


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch):
    """`collected(["failing", ...], weight, **options)`: the batch and the indices of the prompts that were sampled."""

    def grade(task, truth, rollout):
        seen, solved = (verdicts[rollout.sibling] for verdicts in VERDICTS[truth])
        return Grade(perception=seen, perception_graded=float(seen), outcome=solved, faithful=None, faults=())

    monkeypatch.setattr("percasym.training.collect.metrics.grade", grade)

    def run(kinds, weight, *, more={}, **options):  # noqa: B006
        settings = Rl(steps=10, batch_size=len(kinds), group_size=4, micro_batch_size=4, lr=1.0, **options)
        task = Prompts(kinds)
        collector = RolloutCollector(
            engine=OneRank(), task=task, family=SimpleNamespace(prompt=lambda prompt: None), rollouts=FourRollouts(),
            sampling=SimpleNamespace(max_new_tokens=8, temperature=1.0), settings=settings, reward="oracle", rewards={"oracle": Oracle()},
            split="train_rl", seed=0, batch_size=4, **more,
        )  # fmt: skip
        return collector.collect(0, weight), task.drawn

    return run


KINDS = ["failing", "solved", "seen alike", "cancelling"]


def kinds_of(batch):
    return [group.sample.truth for group in batch.groups]


@pytest.mark.parametrize("weight", [0.3, 0.5])
def test_dynamic_sampling_replaces_groups_without_a_varying_outcome(collected, weight: float) -> None:
    batch, drawn = collected(KINDS, weight, resample=1)
    # The mixed reward varies in `failing` and in `solved`, and at w = .5 it is constant in `cancelling`.
    assert kinds_of(batch) == ["seen alike", "seen alike", "seen alike", "cancelling"]
    assert (batch.resampled, drawn) == (2, [0, 1, 2, 3, 40, 41])
    assert batch.outcome.tolist()[0] == [1, 0, 0, 0]


def test_dynamic_sampling_can_ask_for_perception_or_for_either(collected) -> None:
    assert collected(KINDS, 0.5, resample=1, resample_by="perception")[0].resampled == 1  # Of `seen alike`, which another one replaces.
    assert collected(KINDS, 0.5, resample=1, resample_by="either")[0].resampled == 0


def test_without_dynamic_sampling_every_prompt_stays(collected) -> None:
    batch, drawn = collected(KINDS, 0.5)
    assert (kinds_of(batch), drawn, batch.resampled) == (KINDS, [0, 1, 2, 3], 0)


def test_in_a_stage_of_text_every_prompt_has_the_percept_in_place_of_its_picture(collected) -> None:
    pictures, _ = collected(["solved"] * 2, 0.0, resample=1)
    texts, _ = collected(["solved"] * 2, 0.0, more={"reads_text": lambda step: step == 0}, resample=1)
    assert [group.sample.prompt.image for group in pictures.groups] == [b"picture"] * 2
    assert [group.rollouts[0].prompt.image for group in texts.groups] == [None, None]
    assert [group.rollouts[0].prompt.question for group in texts.groups] == ["?\nseen alike"] * 2  # Replaced ones, too.


class Masked:
    """A method whose factor of a token is what the picture adds to it, over the mean of the step."""

    paradigm = "rl"

    def without(self, prompt):
        return replace(prompt, image=b"masked")

    def gains(self, own, without):
        return own - without

    def factors(self, gains, means, sizes):
        return gains / ((means * sizes).sum() / sizes.sum())


def test_tokens_are_weighed_by_log_probabilities_with_the_masked_picture(collected, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def logprobs(queries, prompts, rollouts):
        asked.extend(prompts)
        return [[-2.0, -4.0] if prompt.key.index == 0 else [-2.0, -2.0] for prompt in prompts]

    monkeypatch.setattr("percasym.training.collect.PolicyQueries.logprobs", logprobs)
    batch, _ = collected(["solved", "failing"], 0.3, more={"tokens": Masked()})
    assert {prompt.image for prompt in asked} == {b"masked"}
    # Sampled at -1 each: gains 1 and 3 for four rollouts, 1 and 1 for four others; the mean over tokens is 1.5.
    assert batch.gain == 1.5
    assert [one.tolist() for one in batch.factors] == [[1 / 1.5, 3 / 1.5]] * 4 + [[1 / 1.5, 1 / 1.5]] * 4


@pytest.mark.parametrize(
    ("options", "rounds"),
    [({}, [0, 1, 2, 3]), ({"measure_every": 2}, [0, 2]), ({"measure_every": 0}, []), ({"measure_every": 0, "record_every": 2}, [0, 1, 3])],
)
def test_rewards_that_are_not_trained_on_are_measured_as_often_as_asked_and_where_rollouts_are_recorded(options, rounds) -> None:
    settings = Rl(steps=4, batch_size=1, micro_batch_size=1, lr=1.0, **{"record_every": 0} | options)
    assert [step for step in range(4) if settings.measures_after(step + 1)] == rounds
