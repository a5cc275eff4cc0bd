"""Micro-batches of an RL step: rollouts with an advantage, equally many on every rank."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from percasym.config.paradigm import Rl
from percasym.models.base import Batch, Row
from percasym.training.rollout_batch import PromptGroup, RolloutBatch
from percasym.types import UNSUPERVISED, Completion, Span

P, R = Span.perception, Span.reasoning
SETTINGS = {"steps": 1, "batch_size": 2, "group_size": 2, "micro_batch_size": 2, "lr": 1.0}


def collate(rows) -> Batch:
    """Rows of one length each, padded on the right; the first token of a prompt names its rollout."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[0] * (longest - len(row.ids))] for row in rows])
    labels = torch.tensor([[*row.labels, *[UNSUPERVISED] * (longest - len(row.labels))] for row in rows])
    return Batch(ids=ids, mask=torch.ones_like(ids), labels=labels)


def rollout(number: int, *, finished: bool = True):
    """A rollout whose tokens are its number, number + 1 of them after one of perception."""
    ids = (number,) * (number + 2)
    completion = Completion(ids=ids, finished=finished, logprobs=(-float(number + 1),) * len(ids))
    return SimpleNamespace(completion=completion, labels=(P, *[R] * (number + 1)))


def batch_of(rollouts, *, places=(0, 1)) -> RolloutBatch:
    prompt = Row(ids=(9,), labels=(UNSUPERVISED,))
    groups = [PromptGroup(sample=None, prompt_row=prompt, rollouts=rollouts[at : at + 2], grades=()) for at in range(0, len(rollouts), 2)]
    nothing = torch.zeros(2, 2, dtype=torch.float64)
    return RolloutBatch(groups=groups, places=places, perception=nothing, outcome=nothing, scores={}, reasoning=())


def advantages(*values: float) -> dict[Span, torch.Tensor]:
    return dict.fromkeys(Span, torch.tensor(values))


def in_window(window) -> list[int]:
    return [row for micro in window for row in micro.rows.tolist()]


FOUR = [rollout(number) for number in range(4)]


def window(batch, values, rows_per_forward=2, **options):
    return batch.window(SimpleNamespace(collate=collate), Rl(**SETTINGS | options), rows_per_forward, values)


def test_a_rollout_without_an_advantage_is_left_out() -> None:
    assert in_window(window(batch_of(FOUR), advantages(0, 0, 0.5, -0.5))) == [2, 3]


def test_an_advantage_of_one_span_is_enough() -> None:
    routed = {P: torch.tensor([0.0, 1.0, 0.0, 0.0]), R: torch.tensor([0.0, 0.0, 0.0, -1.0])}
    assert in_window(window(batch_of(FOUR), routed)) == [1, 3]


def test_a_kl_term_needs_every_rollout() -> None:
    assert in_window(window(batch_of(FOUR), advantages(0, 0, 0.5, -0.5), kl=0.1)) == [0, 1, 2, 3]


def test_a_batch_without_advantages_still_makes_a_step() -> None:
    assert in_window(window(batch_of(FOUR), advantages(0, 0, 0, 0))) == [0]


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_keeps_as_many_rollouts_as_the_one_with_the_most(rank: int) -> None:
    own = batch_of(FOUR[2 * rank : 2 * rank + 2], places=range(rank, 2, 2))
    assert len(in_window(window(own, advantages(0, 0, 0.5, -0.5), rows_per_forward=1))) == 2


def test_rows_of_like_length_share_a_forward_and_know_their_rollout_and_its_log_probabilities() -> None:
    short, long = window(batch_of([FOUR[3], FOUR[0], FOUR[2], FOUR[1]]), advantages(1, 2, 3, 4))
    assert (short.rows.tolist(), long.rows.tolist()) == ([1, 3], [2, 0])
    assert short.sampled.tolist() == [[0, -1, -1, 0], [0, -2, -2, -2]]
    assert short.tokens(advantages(1, 2, 3, 4)).tolist() == [[0, 2, 2, 0], [0, 4, 4, 4]]


def test_factors_of_tokens_multiply_their_advantages() -> None:
    batch = replace(batch_of(FOUR), factors=[np.array([2.0, *[0.5] * (number + 1)]) for number in range(4)])
    first, second = window(batch, advantages(1, 2, 3, 4))
    assert first.tokens(advantages(1, 2, 3, 4)).tolist() == [[0, 2, 0.5, 0], [0, 4, 1, 1]]
    assert second.tokens(advantages(1, 2, 3, 4)).tolist() == [[0, 6, 1.5, 1.5, 1.5, 0], [0, 8, 2, 2, 2, 2]]


def test_tokens_are_counted_with_and_without_an_advantage() -> None:
    assert batch_of(FOUR).counts(Rl(**SETTINGS)).tolist() == [4, 1 + 2 + 3 + 4]


def test_what_met_the_token_limit_can_be_left_out_of_loss_and_count() -> None:
    cut = batch_of([rollout(0), rollout(1, finished=False), *FOUR[2:]])
    (first, _), settings = window(cut, advantages(1, 1, 1, 1), overlong="mask"), Rl(**SETTINGS, overlong="mask")
    assert (first.batch.labels[1] == UNSUPERVISED).all()
    assert cut.counts(settings).tolist() == [3, 1 + 3 + 4]


def pictured(size: int) -> Row:
    return Row(ids=(9,), labels=(UNSUPERVISED,), inputs={"pixel_values": torch.zeros(size, 2), "grid": torch.tensor([[1, size, 1]])})


@pytest.mark.parametrize(
    ("prompts", "pictures"),
    [
        ((pictured(4), pictured(4)), [[0, 0], [1, 1]]),
        ((pictured(4), pictured(8)), [[0, 0], [1, 1]]),
        ((Row(ids=(9,), labels=(UNSUPERVISED,)), pictured(4)), [None, [1, 1]]),
    ],
)
def test_rows_know_which_prompt_their_picture_is_of(prompts, pictures) -> None:
    batch = batch_of(FOUR)
    batch = replace(batch, groups=[replace(group, prompt_row=row) for group, row in zip(batch.groups, prompts, strict=True)])
    assert [micro.pictures for micro in window(batch, advantages(1, 1, 1, 1))] == pictures
    together = window(batch, advantages(1, 1, 1, 1), rows_per_forward=4)
    same = prompts[0].inputs and prompts[0].inputs["pixel_values"].shape == prompts[1].inputs["pixel_values"].shape
    assert [micro.pictures for micro in together] == [[0, 0, 1, 1] if same else None]
