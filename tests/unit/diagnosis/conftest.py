"""Synthetic rollouts whose rewards have known correlations, so that each report can be checked."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from percasym.diagnosis.rollout_file import RolloutGroup
from percasym.spans.grammar import Grammar
from percasym.types import Completion, Fault, Grade, Prompt, Rollout, SampleKey, Span


def grade(perception: bool, outcome: bool, *, graded: float | None = None, faithful: bool | None = None) -> Grade:
    return Grade(
        perception=perception,
        perception_graded=float(perception) if graded is None else graded,
        outcome=outcome,
        faithful=faithful,
        faults=() if outcome else (Fault.no_answer,),
    )


@pytest.fixture
def make_grade() -> Callable[..., Grade]:
    """A verdict, `make_grade(perception, outcome, graded=..., faithful=...)`."""
    return grade


def rollout(prompt: Prompt, percept: str | None, *, seed: int = 0) -> Rollout:
    """A response of four tokens that states this percept, or none."""
    text = f"<perception>{percept}</perception> so <answer>7</answer>" if percept is not None else "so"
    response = Grammar().read(text.encode())
    completion = Completion(ids=(seed, 1, 2, 3), logprobs=(-0.5, -0.25, -1.125, 0.0), finished=True)
    return Rollout(
        prompt=prompt, completion=completion, response=response, labels=(Span.perception, Span.perception, Span.reasoning, Span.reasoning)
    )


def synthetic(num_groups: int = 48, group_size: int = 8, seed: int = 0) -> list[RolloutGroup]:
    """Groups whose rewards are known to be good, bad, only good at telling prompts apart, blind, constant or silent."""
    rng = np.random.default_rng(seed)
    groups = []
    for index in range(num_groups):
        prompt = Prompt(key=SampleKey(task="sudoku", split="train_rl", seed=0, index=index), image=b"\x89PNG picture", question="Solve.")
        ease = float(rng.normal())
        skill = ease + rng.normal(size=group_size)
        correct = skill > 0.3  # About two in five percepts are right.
        noise = rng.normal(size=(4, group_size))
        reasoning = 1 / (1 + math.exp(-2 * ease - float(rng.normal(scale=0.3))))
        outcome = rng.random(group_size) < reasoning * (0.5 + 0.5 * correct)
        rewards = {
            "oracle": correct.astype(float),
            "consensus": squashed(skill + 0.5 * noise[0]),
            "faithful": squashed(0.3 * skill + 2.0 * noise[1]),
            "augmentation": squashed(np.full(group_size, ease) + 0.3 * noise[2]),
            "confidence": squashed(noise[3]),
            "valid_state": np.ones(group_size),
        }
        scores = {name: tuple(map(float, values)) for name, values in rewards.items()}
        scores["blindfold_solver"] = tuple(
            float(right) if known else None for right, known in zip(correct, rng.random(group_size) < 0.6, strict=True)
        )
        groups.append(
            RolloutGroup(
                truth=f"12/{index}",
                puzzle=f"12/{index}",
                rollouts=tuple(rollout(prompt, f"12/{index}" if right else "12/43", seed=i) for i, right in enumerate(correct)),
                grades=tuple(
                    grade(bool(right), bool(a), graded=min(1.0, max(0.0, 0.8 + 0.1 * float(s))) if not right else 1.0, faithful=bool(a))
                    for right, a, s in zip(correct, outcome, skill, strict=True)
                ),
                rewards=scores,
                labelled=frozenset({"oracle"}),
                advantages=tuple(float(value) for value in skill.round(6)),
                reasoning=reasoning,
            )
        )
    return groups


def squashed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))


@pytest.fixture(scope="session")
def groups() -> list[RolloutGroup]:
    """48 prompts of 8 rollouts with seven rewards of known worth."""
    return synthetic()


@pytest.fixture
def make_groups() -> Callable[..., list[RolloutGroup]]:
    """Writes as many as a test wants: `make_groups(num_groups, group_size, seed)`."""
    return synthetic
