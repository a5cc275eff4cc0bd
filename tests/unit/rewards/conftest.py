"""Rollouts made of texts, and the contexts in which rewards score them."""

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
def context() -> Any:
    """`context(task)`: the task's skills and nothing else of it; `right` and `policy` refuse unless they are given."""

    def refuse(*_: Any) -> Any:
        raise AssertionError("the reward did not declare this")

    def make(task: Any, *, right: Any = refuse, policy: Any = None, skills: tuple[str, ...] = SKILLS) -> RewardContext:
        allowed = SimpleNamespace(**{name: getattr(task, name) if name in skills else refuse for name in SKILLS})
        forbidden = SimpleNamespace(answers=refuse, percepts=refuse, logprobs=refuse)
        return RewardContext(skills=allowed, right=right, policy=policy or forbidden)

    return make


@dataclass(frozen=True, kw_only=True)
class HashPolicy:
    """A policy whose responses are a fixed function of the prompt, right or wrong by its hash."""

    texts: tuple[str, ...]
    """Responses to choose from."""

    def answers(self, prompts: list[Prompt]) -> list[Response]:
        return [Grammar().read(self.texts[hashed(prompt) % len(self.texts)].encode()) for prompt in prompts]

    def percepts(self, prompts: list[Prompt]) -> list[str | None]:
        return [response.percept for response in self.answers(prompts)]

    def logprobs(self, prompts: list[Prompt], rollouts: list[Rollout]) -> list[list[float]]:
        return [
            [-(hashed(prompt, rollout.response.percept) % 1000) / 500] * len(rollout.labels)
            for prompt, rollout in zip(prompts, rollouts, strict=True)
        ]


def hashed(*values: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=8).digest(), "big")


@pytest.fixture
def hash_policy() -> Any:
    return lambda *texts: HashPolicy(texts=texts)
