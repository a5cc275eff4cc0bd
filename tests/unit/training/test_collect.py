"""Collection of one RL step: groups with zero variance are replaced, weights are gathered only for rewards that query the model."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from percasym.config.paradigm import Rl
from percasym.config.sampling import Native
from percasym.rewards.oracle import Oracle
from percasym.spans.grammar import Grammar
from percasym.tasks.sudoku.task import Sudoku
from percasym.training.collect import RolloutCollector
from percasym.types import Completion, Rollout
from tests.unit.training.fakes import WordWeights

TASK = Sudoku(size=4, givens=(8, 10))
MIXED = (True, False)


class Answers:
    """A rollout engine whose answers to prompt i are right as `right(i)` says, one for each sibling; every percept is right."""

    def __init__(self, right: Callable[[int], tuple[bool, ...]], *, streams: bool = False) -> None:
        self.right, self.streams, self.calls = right, streams, []

    def refresh(self, *given: Any) -> None:
        self.calls.append(given)

    def release(self) -> None:
        self.calls.append("released")

    def generate(self, prompts, *, group_size, seed, prompt_rows, advance, forced=None):
        assert prompt_rows == [("row", prompt.key.index) for prompt in prompts]
        found = []
        for place, prompt in enumerate(prompts):
            sample, tags = TASK.sample(prompt.key), Grammar()
            if forced is not None:
                assert forced[place] == sample.demonstration
            texts = [
                f"{tags.perception(sample.truth)}so{tags.open_answer}{sample.solution if right else 'none'}{tags.close_answer}"
                for right in (self.right(prompt.key.index) if forced is None else (True,) * group_size)
            ]
            completion = Completion(ids=(), logprobs=None, finished=True)
            found.append([Rollout(prompt=prompt, completion=completion, response=tags.read(text.encode()), labels=()) for text in texts])
        advance(len(prompts) * group_size)
        return found


class Whole(WordWeights):
    """An engine of rank 1 of 2 whose model is a word."""

    rank, num_ranks = 1, 2

    def all_reduce_sum(self, values):
        return values


class Asking:
    """A surrogate that needs the policy."""

    needs_policy, needs_outcome = True, False

    def score(self, groups, context):
        return [[0.5 for _ in group] for group in groups]


def collected(rollouts: Answers, *, step: int = 0, rewards: dict[str, Any] | None = None, **options: Any) -> tuple[Any, list[int]]:
    settings = Rl(**{"steps": 5, "batch_size": 4, "group_size": 2, "micro_batch_size": 2, "lr": 1.0, "diagnose_every": 0} | options)
    advanced: list[int] = []
    collector = RolloutCollector(
        engine=Whole(), task=TASK, family=SimpleNamespace(prompt=lambda prompt: ("row", prompt.key.index)), rollouts=rollouts,
        sampling=Native(max_new_tokens=8), settings=settings, reward="oracle", rewards={"oracle": Oracle()} | (rewards or {}),
        split="train_rl", seed=0, batch_size=4, advance=advanced.append,
    )  # fmt: skip
    return collector.collect(step, 0.5), advanced


def test_a_rank_collects_every_second_prompt_of_a_step_and_leaves_the_others_empty() -> None:
    batch, advanced = collected(Answers(lambda index: MIXED), step=2)
    assert [group.sample.prompt.key.index for group in batch.groups] == [2 * 4 + 1, 2 * 4 + 3]
    # Rank 1 has rows 1 and 3 of the four; the others are those of rank 0, which are summed in.
    assert torch.equal(batch.outcome, torch.tensor([[0, 0], [1, 0], [0, 0], [1, 0]], dtype=torch.float64))
    assert torch.equal(batch.perception, torch.tensor([[0, 0], [1, 1], [0, 0], [1, 1]], dtype=torch.float64))
    assert (list(batch.reasoning), batch.resampled, advanced) == ([None, None], 0, [4])


@pytest.mark.parametrize(("times", "indices", "resampled"), [(0, [1, 3], 0), (1, [1, 23], 1), (2, [1, 43], 2), (9, [1, 43], 2)])
def test_groups_with_zero_variance_are_replaced_by_prompts_of_no_step(times: int, indices: list[int], resampled: int) -> None:
    # Prompt 3 has two right answers and prompt 23 (the first that no step uses is 5 * 4, and this is row 3) two wrong ones.
    answers = {3: (True, True), 23: (False, False)}
    rollouts = Answers(lambda index: answers.get(index, MIXED))
    batch, _ = collected(rollouts, resample=times)
    assert [group.sample.prompt.key.index for group in batch.groups] == indices
    assert batch.resampled == resampled
    expected = {3: [1.0, 1.0], 23: [0.0, 0.0], 43: [1.0, 0.0]}[indices[1]]
    assert batch.outcome[3].tolist() == expected, "what is trained on is of the prompt that replaced it"


def test_weights_are_gathered_only_where_a_reward_queries_the_model() -> None:
    for rewards, options, given in (
        ({}, {}, ("parts", "gather")),
        ({"asking": Asking()}, {}, ("parts", "gather")),  # It is measured at diagnosed steps only.
        ({"asking": Asking()}, {"diagnose_every": 1}, ("whole",)),
    ):
        rollouts = Answers(lambda index: MIXED, streams=True)
        batch, _ = collected(rollouts, rewards=rewards, **options)
        assert rollouts.calls == [given, "released"]
        assert set(batch.scores) == {"oracle"} | ({"asking"} if options else set())
    whole = Answers(lambda index: MIXED)
    collected(whole)
    assert whole.calls == [("whole",), "released"], "an engine that decodes with the model"


def test_a_diagnosed_step_samples_with_the_right_percept_forced() -> None:
    rollouts = Answers(lambda index: (False, False))
    batch, advanced = collected(rollouts, diagnose_every=2, step=2)
    assert (list(batch.reasoning), advanced) == ([1.0, 1.0], [4, 4])
    assert list(collected(rollouts, diagnose_every=2, step=1)[0].reasoning) == [None, None]
