"""TRL with spans: a balanced SFTTrainer, perception rewards for GRPOTrainer, and a callback that says what each reward goes together with.

    trainer = BalancedSFTTrainer(model, args=SFTConfig(...), data_collator=SpanCollator(...), train_dataset=rows, balance="ngdiff")

    rewards = [outcome_reward(task, codec), perception_reward(task, codec, "consensus")]
    config = GRPOConfig(reward_weights=[0.7, 0.3], ...)                    # R = (1 - w) a + w a_p with w = 0.3
    trainer = GRPOTrainer(model, reward_funcs=rewards, args=config, callbacks=[RewardCorrelations(rewards)], ...)

Rows for GRPO have the columns `prompt` and `image` of TRL, and `key` of `grpo_row`: the identity of the sample, from which the reward
functions derive what each of them may see. A surrogate gets rollouts and the truth-free skills of the task, never p*.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

import torch
from PIL import Image
from transformers import TrainerCallback
from trl import SFTTrainer

from percasym import metrics
from percasym.config.schema import ConfigError
from percasym.diagnosis.stream import reward_statistics
from percasym.integrations.transformers import SpanBalanced
from percasym.rewards.base import Policy, Reward
from percasym.rewards.confidence import Confidence
from percasym.rewards.registry import missing_skills, packaged_rewards
from percasym.rollout.base import RolloutEngine
from percasym.spans.codec import Codec
from percasym.tasks.base import SKILLS, Task
from percasym.training.reward_context import ForbiddenPolicy, needs_policy, score
from percasym.training.rollout_batch import PromptGroup
from percasym.types import Completion, Sample, SampleKey


class BalancedSFTTrainer(SpanBalanced, SFTTrainer):
    """TRL's `SFTTrainer` with a weight for each span: `SpanBalanced` documents `balance`, `probe_every` and the logs.

    Rows that TRL tokenises itself have no spans: pass a `data_collator` that adds them (`SpanCollator`), or tokenised rows with `spans`.
    The entropy and token accuracy that TRL measures in its own loss are not logged in training.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As `SFTTrainer`, and `balance`, `probe_every`. Raises ConfigError for options of TRL that pack rows or change the loss."""
        super().__init__(*args, **kwargs)
        given = self.args
        refused = {
            "packing and padding_free join rows, and spans are counted by row. Turn them off": given.packing or self.padding_free,
            f"loss_type={given.loss_type} is another loss of a token. Use nll": given.loss_type != "nll",
            "activation_offloading is not supported. Turn it off": given.activation_offloading,
        }
        for reason, applies in refused.items():
            if applies:
                raise ConfigError(f"{reason}.")


def grpo_row(sample: Sample) -> dict[str, Any]:
    """A sample as a row of GRPOTrainer: `prompt` (one user turn), `image`, and `key`, JSON of the sample's identity, without any label."""
    assert sample.prompt.image is not None, "a row of GRPO has a picture"
    picture = Image.open(io.BytesIO(sample.prompt.image)).convert("RGB")
    prompt = [{"role": "user", "content": sample.prompt.question}]
    return {"prompt": prompt, "image": picture, "key": json.dumps(asdict(sample.prompt.key))}


@dataclass(slots=True, kw_only=True, eq=False)
class RewardFunction:
    """A reward of percasym as TRL calls it: `reward_funcs=[RewardFunction(...)]`; one number for each completion, None where undefined."""

    name: str
    """The name in TRL's logs: `rewards/<name>/mean`."""
    task: Task
    codec: Codec
    reward: Reward | None
    """None pays the outcome a."""
    policy: Policy | None = None
    groups: list[PromptGroup] = field(default_factory=list)
    """The graded groups of the last call, for `RewardCorrelations`."""
    scores: list[list[float | None]] = field(default_factory=list)
    """Its scores, in their shape."""
    after: Callable[[Callable[[str, float], None]], None] | None = None
    """Called with TRL's `log_metric` after each call."""

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(
        self,
        *,
        completion_ids: Sequence[Sequence[int]],
        key: Sequence[str] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """One score for each completion, in their order; completions of one key form a group.

        Raises ConfigError where the dataset has no column `key`.
        """
        if key is None:
            raise ConfigError("The dataset has no column key, which names the sample of a prompt. Make its rows by grpo_row(sample).")
        places: dict[str, list[int]] = {}
        for place, name in enumerate(key):
            places.setdefault(name, []).append(place)
        self.groups = [self._group(name, [completion_ids[place] for place in own]) for name, own in places.items()]
        if self.reward is None:
            self.scores = [[float(grade.outcome) for grade in group.grades] for group in self.groups]
        else:
            self.scores = score(self.reward, self.groups, self.task, self.policy or ForbiddenPolicy(reward=self.reward))  # type: ignore[arg-type]
        flat: list[float | None] = [None] * len(key)
        for own, row in zip(places.values(), self.scores, strict=True):
            for place, value in zip(own, row, strict=True):
                flat[place] = value
        if self.after is not None and log_metric is not None:
            self.after(log_metric)
        return flat

    def _group(self, key: str, completions: Sequence[Sequence[int]]) -> PromptGroup:
        """The completions of one prompt, parsed and graded."""
        sample = self.task.sample(SampleKey(**json.loads(key)))
        rollouts = [
            self.codec.rollout(sample.prompt, Completion(ids=tuple(ids), logprobs=None, finished=bool(ids) and ids[-1] == self.codec.end))
            for ids in completions
        ]
        if isinstance(self.reward, Confidence) and self.policy is not None:
            found = self.policy.logprobs([sample.prompt] * len(rollouts), rollouts)
            rollouts = [
                replace(rollout, completion=replace(rollout.completion, logprobs=tuple(own)))
                for rollout, own in zip(rollouts, found, strict=True)
            ]
        grades = [metrics.grade(self.task, sample.truth, rollout) for rollout in rollouts]
        return PromptGroup(sample=sample, prompt_row=None, rollouts=rollouts, grades=grades)  # type: ignore[arg-type]


def outcome_reward(task: Task, codec: Codec) -> RewardFunction:
    """The outcome a: 1 if the answer is right, else 0."""
    return RewardFunction(name="outcome", task=task, codec=codec, reward=None)


def perception_reward(task: Task, codec: Codec, reward: str | Reward = "oracle", *, policy: Policy | None = None) -> RewardFunction:
    """A perception reward: a packaged one by name (`oracle` reads the label, the others do not), or any that follows its protocol.

    - task: what the rows were made of, as configured.
    - codec: grammar and tokenizer of the model (`family.codec()`).
    - policy: answers queries to the model in training, for `blindfold_self`, `image_dependence` and `augmentation`, and for `confidence`,
      because GRPOTrainer does not pass the sampled log-probabilities to its reward functions: a
      `percasym.training.policy_queries.PolicyQueries` of the trainer's model.

    Raises ConfigError for an unknown name, a task that lacks a skill of the reward, and a reward that needs the policy without one.
    """
    packaged = packaged_rewards()
    if isinstance(reward, str):
        if reward not in packaged:
            raise ConfigError(f"reward must be one of {', '.join(packaged)}, got {reward!r}.")
        reward = packaged[reward]()
    name = next((known for known, cls in packaged.items() if type(reward) is cls), type(reward).__name__)
    if missing := missing_skills(reward, task):
        raise ConfigError(f"reward {name} needs a task that can {SKILLS[missing[0]]}, and {task.name} cannot. Choose another reward.")
    if (needs_policy(reward) or isinstance(reward, Confidence)) and policy is None:
        raise ConfigError(f"reward {name} queries the model in training. Pass policy=PolicyQueries(model=..., ...).")
    return RewardFunction(name=name, task=task, codec=codec, reward=reward, policy=policy)


class RewardCorrelations(TrainerCallback):
    """Logs what the rewards of a GRPOTrainer go together with, at every sampling of completions.

    - `corr/outcome/perception`, r(a, a_p): pooled, and `/within` and `/across` prompts.
    - `corr/outcome/reasoning/across`, r(a, a_r): a_r of a prompt is the share of right answers among completions with p* forced as their
      perception span. It is measured where `reasoning` is given, for one more sampling of the prompts.
    - `corr/outcome/faithful`: with the share of answers that follow from the percept that was stated.
    - `corr/<reward>/perception`: of each perception reward.
    - `reward/<name>/zero_variance`: share of groups whose completions all have the same reward, and so no advantage.

    docs/metrics.md defines them all. An undefined correlation (with a constant) is not logged. Each process measures its own groups, and
    TRL logs the mean over processes and over the samplings since the last line, to every tracker.
    """

    def __init__(self, rewards: Sequence[Any], reasoning: RolloutEngine | None = None, *, weights: Sequence[float] | None = None) -> None:
        """`rewards` are the `reward_funcs` and `weights` their `reward_weights`; functions that are not of percasym are left out.

        `reasoning` samples with p* forced (`percasym.rollout.native.NativeRollouts`), from the trainer's model.

        Raises ConfigError when none of the rewards is of percasym, or the weights do not fit them.
        """
        if weights is not None and len(weights) != len(rewards):
            raise ConfigError(f"weights must be as many as rewards, {len(rewards)}, got {len(weights)}.")
        factors = [1.0] * len(rewards) if weights is None else [float(weight) for weight in weights]
        pairs = [(reward, factor) for reward, factor in zip(rewards, factors, strict=True) if isinstance(reward, RewardFunction)]
        if not pairs:
            raise ConfigError("RewardCorrelations needs a reward of percasym: outcome_reward(...) or perception_reward(...).")
        self._rewards, self._weights, self._reasoning = [reward for reward, _ in pairs], [factor for _, factor in pairs], reasoning
        self._model: Any = None
        self._rewards[-1].after = self.measure  # TRL calls reward functions in their order, so all scores are known by then.

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Keep the model that a_r is measured with."""
        self._model = model

    def measure(self, log_metric: Callable[[str, float], None]) -> None:
        """Log the numbers of the last completions through TRL's `log_metric`."""
        groups = self._rewards[0].groups
        named = {reward.name: reward.scores for reward in self._rewards if reward.reward is not None}
        paid = [
            [sum(w * (score or 0.0) for w, score in zip(self._weights, own, strict=True)) for own in zip(*rows, strict=True)]
            for rows in zip(*(reward.scores for reward in self._rewards), strict=True)
        ]
        numbers = reward_statistics([group.grades for group in groups], named, paid, self._accuracy(groups))
        for name, value in numbers.items():
            log_metric(name, value)

    def _accuracy(self, groups: Sequence[PromptGroup]) -> list[float | None] | None:
        """a_r of each prompt, or None where it is not measured."""
        if self._reasoning is None or self._model is None:
            return None
        samples = [group.sample for group in groups]
        self._reasoning.refresh(self._model)
        with torch.inference_mode():
            sampled = self._reasoning.generate(
                [sample.prompt for sample in samples],
                group_size=len(groups[0].rollouts),
                seed=0,
                forced=[sample.demonstration for sample in samples],
            )
        task = self._rewards[0].task
        return [
            fmean(float(metrics.grade(task, sample.truth, rollout).outcome) for rollout in rollouts)
            for sample, rollouts in zip(samples, sampled, strict=True)
        ]
