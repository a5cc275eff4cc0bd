"""Queries of rewards to the model in training: what they say does not depend on how it is trained."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from percasym.config.sampling import Native
from percasym.engine.precision import inference, lowered
from percasym.models.adapt import Adaptation, Lora, adapt
from percasym.models.mode import evaluating
from percasym.models.qwen3vl import Qwen3VL
from percasym.rollout.native import NativeRollouts
from percasym.tasks.sudoku.task import Sudoku
from percasym.training.policy_queries import PolicyQueries
from percasym.types import Prompt, Rollout, SampleKey

CPU = torch.device("cpu")


def prompts(num: int) -> Sequence[Prompt]:
    return [Sudoku(givens=(11, 13)).sample(SampleKey(task="sudoku", split="train_rl", seed=0, index=index)).prompt for index in range(num)]


def queries(model: torch.nn.Module) -> PolicyQueries:
    return PolicyQueries(model=model, family=Qwen3VL(), max_new_tokens=24, batch_size=4, temperature=1.0)


def rollouts(model: torch.nn.Module) -> list[Rollout]:
    sampler = NativeRollouts(family=Qwen3VL(), sampling=Native(max_new_tokens=12, batch_size=4))
    sampler.refresh(model)
    return [group[0] for group in sampler.generate(prompts(2), group_size=1, seed=0)]


def test_answers_do_not_depend_on_checkpointing_or_on_the_mode_of_training() -> None:
    plain = Qwen3VL().load().eval()
    model = adapt(Qwen3VL().load(), Adaptation(gradient_checkpointing=True), Qwen3VL.parts).train()
    asked, sampled = prompts(2), rollouts(plain)
    expected = queries(plain)
    found = queries(model)
    assert any(percept is not None for percept in expected.percepts(asked))
    assert found.percepts(asked) == expected.percepts(asked)
    assert found.answers(asked) == expected.answers(asked)
    assert found.logprobs(asked, sampled) == expected.logprobs(asked, sampled)
    assert [one.completion.ids for one in rollouts(model)] == [one.completion.ids for one in sampled]
    assert model.training, "training goes on in its own mode"


def test_dropout_of_adapters_is_off_in_a_query_and_on_after_it() -> None:
    model = adapt(Qwen3VL().load(), Adaptation(lora=Lora(rank=4, dropout=0.5)), Qwen3VL.parts).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    sampled = rollouts(model)
    once, again = (queries(model).logprobs(prompts(2), sampled) for _ in range(2))
    assert once == again
    own = [one.completion.logprobs for one in sampled]
    assert [values for row in once for values in row] == pytest.approx([value for row in own for value in row or ()], abs=1e-4)
    assert model.training


def test_log_probabilities_are_those_of_the_sampler_where_frozen_weights_are_stored_in_bfloat16() -> None:
    model = adapt(Qwen3VL().load(), Adaptation(lora=Lora(rank=4)), Qwen3VL.parts)
    model = lowered(model, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16, torch.float32}
    with inference(model, CPU):
        sampled = rollouts(model)
        found = queries(model).logprobs(prompts(2), sampled)
    own = [value for one in sampled for value in one.completion.logprobs or ()]
    assert [value for row in found for value in row] == pytest.approx(own, abs=0.1), "rounding of bfloat16"
    assert len(own) > 10


def test_a_query_that_fails_leaves_the_model_in_training() -> None:
    model = torch.nn.Linear(2, 1).train()
    with pytest.raises(RuntimeError), evaluating(model):
        model(torch.ones(3))
    assert model.training
