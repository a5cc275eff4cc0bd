"""Rollouts made of texts, and the scenes in which rewards score them."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from percasym.rewards.base import RewardContext
from percasym.spans.grammar import Grammar
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Completion, Prompt, Response, Rollout, SampleKey, Span

CONF = Path(__file__).parents[3] / "conf" / "reward"
SKILLS = ("parse", "agreement", "verify", "draw", "solve", "valid")
TASKS = {"sudoku": Sudoku(givens=(8, 10)), "graph_coloring": GraphColoring()}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Any:
    return TASKS[request.param]


@pytest.fixture
def reward() -> Any:
    """`reward("consensus", vote="majority")`: the reward of a yaml with the values it states."""

    def make(name: str, **options: Any) -> Any:
        values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
        module, _, kind = values.pop("_target_").rpartition(".")
        return getattr(importlib.import_module(module), kind)(**values | options)

    return make


@pytest.fixture
def sample() -> Any:
    """`sample(task, 3)`: a sample of the test split."""
    return lambda task, index=0: task.sample(SampleKey(task=task.name, split="test", seed=0, index=index))


@pytest.fixture
def rollout() -> Any:
    """`rollout(prompt, text)`: one token for the perception, one for the rest, unless labels are given."""

    def make(
        prompt: Prompt,
        text: str | bytes,
        *,
        logprobs: tuple[float, ...] | None = (-0.1, -0.2),
        labels: tuple[Span, ...] = (Span.perception, Span.reasoning),
        finished: bool = True,
    ) -> Rollout:
        response = Grammar().read(text.encode() if isinstance(text, str) else text, finished=finished)
        completion = Completion(ids=tuple(range(len(labels))), logprobs=logprobs, finished=finished)
        return Rollout(prompt=prompt, completion=completion, response=response, labels=labels)

    return make


@pytest.fixture
def scene() -> Any:
    """`scene(task)`: the task's skills and nothing else of it; `right` and `policy` refuse unless they are given."""

    def refuse(*_: Any) -> Any:
        raise AssertionError("this reward did not say that it asks")

    def make(task: Any, *, right: Any = refuse, policy: Any = None) -> RewardContext:
        skills = SimpleNamespace(**{name: getattr(task, name) for name in SKILLS})
        silent = SimpleNamespace(answers=refuse, percepts=refuse, logprobs=refuse)
        return RewardContext(skills=skills, right=right, policy=policy or silent)

    return make


@dataclass(frozen=True, kw_only=True)
class Moody:
    """A policy whose every answer is a fixed function of what it is asked, right or wrong as a hash falls."""

    texts: tuple[str, ...]
    """Responses to choose from."""

    def answers(self, prompts: list[Prompt]) -> list[Response]:
        return [Grammar().read(self.texts[mood(prompt) % len(self.texts)].encode()) for prompt in prompts]

    def percepts(self, prompts: list[Prompt]) -> list[str | None]:
        return [response.percept for response in self.answers(prompts)]

    def logprobs(self, prompts: list[Prompt], rollouts: list[Rollout]) -> list[list[float]]:
        return [
            [-(mood(prompt, rollout.response.percept) % 1000) / 500] * len(rollout.labels)
            for prompt, rollout in zip(prompts, rollouts, strict=True)
        ]


def mood(*asked: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(asked).encode(), digest_size=8).digest(), "big")


@pytest.fixture
def moody() -> Any:
    return lambda *texts: Moody(texts=texts)
