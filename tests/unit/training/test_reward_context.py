"""What a surrogate reward may use: the policy, outcomes and puzzles only as it declares."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from percasym.spans.grammar import Grammar
from percasym.tasks.sudoku.task import Sudoku
from percasym.training.reward_context import TruthFree, needs_policy, score
from percasym.training.rollout_batch import PromptGroup
from percasym.types import Completion, Rollout, SampleKey

TASK = Sudoku(size=4, givens=(8, 10))
SAMPLE = TASK.sample(SampleKey(task="sudoku", split="train_rl", seed=0, index=0))


class Curious:
    """A reward that declares nothing and uses what `use` takes of its context."""

    needs_policy = needs_outcome = False

    def __init__(self, use: Callable[[Any], Any]) -> None:
        self.use = use

    def score(self, groups: Any, context: Any) -> Any:
        return [[self.use(context) for _ in group] for group in groups]


def scored(reward: Any, policy: Any = None) -> Any:
    completion = Completion(ids=(), logprobs=None, finished=True)
    rollout = Rollout(prompt=SAMPLE.prompt, completion=completion, response=Grammar().read(b""), labels=())
    group = PromptGroup(sample=SAMPLE, prompt_row=None, rollouts=[rollout], grades=[])
    return score(reward, [group], TASK, policy)


USES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "answers": ("needs_policy", lambda context: context.policy.answers([SAMPLE.prompt])),
    "percepts": ("needs_policy", lambda context: context.policy.percepts([SAMPLE.prompt])),
    "logprobs": ("needs_policy", lambda context: context.policy.logprobs([], [])),
    "outcomes": ("needs_outcome", lambda context: context.right(SAMPLE.prompt, SAMPLE.solution)),
}


@pytest.mark.parametrize("what", USES)
def test_a_reward_that_uses_more_than_it_declares_is_refused(what: str) -> None:
    permission, use = USES[what]
    reward = Curious(use)
    assert not needs_policy(reward)
    sentence = f"Curious looked at what only a reward with {permission} = True may see. Declare it there."
    with pytest.raises(PermissionError, match=re.escape(sentence)):
        scored(reward, SimpleNamespace())


def test_a_reward_uses_what_it_declares() -> None:
    reward = Curious(lambda context: context.right(SAMPLE.prompt, SAMPLE.solution))
    reward.needs_outcome = True
    assert scored(reward) == [[True]]
    asked = Curious(lambda context: context.policy.answers([]))
    asked.needs_policy = True
    assert scored(asked, SimpleNamespace(answers=lambda prompts: "of the policy")) == [["of the policy"]]


def test_a_surrogate_with_a_constructor_named_of_is_given_no_grades() -> None:
    class Named(Curious):
        @classmethod
        def of(cls, text: str) -> Named:
            return cls(lambda context: text)

    assert scored(Named.of("0.5")) == [["0.5"]]


def test_a_reward_has_the_skills_of_the_task_without_its_labels() -> None:
    skills = TruthFree(_task=TASK)
    assert skills.parse(SAMPLE.truth) == SAMPLE.truth and skills.valid(SAMPLE.truth)
    assert skills.solve(SAMPLE.truth) == SAMPLE.solution and skills.verify(SAMPLE.truth, SAMPLE.solution)
    assert skills.agreement(SAMPLE.truth, SAMPLE.truth) == 1.0
    assert skills.draw(SAMPLE.truth, SAMPLE.prompt.key) == SAMPLE.prompt.image
