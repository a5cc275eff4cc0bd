"""Sampled groups and greedy answers from vLLM, in the process of the trainer (`rollout=vllm`, `evaluation.engine=vllm`).

Tested on the CPU build of vLLM with both families (`make test-vllm`). Errors that would be silent are checked at run time, on every
machine: every weight after each refresh (`percasym.rollout.vllm_engine`), the prompt's tokens of each request, and the log-probabilities
of the first rollouts and of those after the first update.

    python train.py paradigm=rl rollout=vllm scale=paper
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from percasym.config.sampling import Vllm
from percasym.config.schema import ConfigError
from percasym.models.base import Family, Row
from percasym.rollout.agreement import logprob_gap
from percasym.rollout.base import ForcedPrefix, Gather
from percasym.rollout.vllm_engine import USE_NATIVE, VllmEngine, VllmMismatchError, vllm
from percasym.spans.codec import Codec
from percasym.types import Completion, Demonstration, Prompt, Rollout

MAX_LOGPROB_GAP = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Mean |difference| of log-probabilities in nats per token that kernels and the type may cause (float32: 1e-7 to 8e-7 measured)."""
MAX_BANNED_GAP = 0.1
"""The same at another temperature than 1, where vLLM leaves the probability of the banned tokens out."""
NUM_CHECKS = 2
"""Refreshes after which log-probabilities are compared: that of the first weights, and that of the first update."""
NUM_COMPARED = 4
"""Rollouts in one comparison; each costs a forward of the trained model."""
SEED_RANGE = 2**63
"""vLLM stores a seed as a signed 64-bit integer."""


@dataclass(slots=True, kw_only=True)
class VllmRollouts:
    """A `RolloutEngine` on the GPU of each rank, whose weights are overwritten at each refresh.

    Log-probabilities are over the whole vocabulary at temperature 1. At another temperature vLLM returns them over the allowed
    tokens, which differs by the probability of the banned ones, and cannot return them under top-p or top-k.
    """

    streams: ClassVar[bool] = True
    family: Family
    sampling: Vllm
    engine: VllmEngine
    _model: PreTrainedModel | None = field(default=None, init=False, repr=False)
    _unchecked: int = field(default=NUM_CHECKS, init=False, repr=False)
    _due: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise ConfigError for sampling whose log-probabilities vLLM cannot give."""
        sampling = self.sampling
        if sampling.temperature != 1 and (sampling.top_k or sampling.top_p < 1):
            raise ConfigError(
                f"rollout=vllm gives no log-probabilities of the whole vocabulary at rollout.temperature={sampling.temperature} under "
                "top_p or top_k. Leave those at 1 and 0, or set rollout.temperature=1, or use rollout=native."
            )

    def refresh(self, model: PreTrainedModel, gather: Gather | None = None) -> None:
        """Copy the weights of `model` into vLLM, as `VllmEngine.refresh`."""
        self.engine.refresh(model, gather)
        self._model, self._due = model, self._unchecked > 0

    def release(self) -> None:
        """Free vLLM's memory until the next `refresh`."""
        self.engine.release()

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        group_size: int,
        seed: int,
        prompt_rows: Sequence[Row] | None = None,
        forced: Sequence[Demonstration] | None = None,
        advance: Callable[[int], None] = lambda num_rows: None,
    ) -> list[list[Rollout]]:
        """`group_size` rollouts of each prompt, as in `RolloutEngine`.

        Raises VllmMismatchError when vLLM's prompt tokens or log-probabilities differ from the trainer's.
        """
        codec, sampling = self.family.codec(), self.sampling
        prefixes = ForcedPrefix.all(codec, prompts, forced)
        requests = [request(self.family, prefix) for prefix in prefixes for _ in range(group_size)]
        seeds = [prompt.key.entropy("rollout", seed, i) % SEED_RANGE for prompt in prompts for i in range(group_size)]
        parameters = [
            sampling_params(
                codec, max_tokens=sampling.max_new_tokens, seed=own,
                temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k,
            )
            for own in seeds
        ]  # fmt: skip
        answers = iter(self.engine.generate(requests, parameters))
        groups: list[list[Rollout]] = []
        for prefix, row in zip(prefixes, prompt_rows or [self.family.prompt(prompt) for prompt in prompts], strict=True):
            expected = prefix.row(row).ids
            groups.append([prefix.rollout(codec, completion_of(next(answers), expected, codec.end)) for _ in range(group_size)])
            advance(group_size)
        if self._due and forced is None:
            self._compare([rollout for group in groups for rollout in group][:NUM_COMPARED])
        return groups

    def _compare(self, rollouts: Sequence[Rollout]) -> None:
        assert self._model is not None
        temperature = self.sampling.temperature
        gap = logprob_gap(self._model, self.family, rollouts, temperature)
        most = MAX_LOGPROB_GAP[self.engine.dtype] if temperature == 1 else MAX_BANNED_GAP
        if not gap <= most:
            raise VllmMismatchError(
                f"The log-probabilities of vLLM and of the trainer differ by {gap:.3g} nats a token on {len(rollouts)} rollouts "
                f"(at most {most} is rounding): they hold other weights, or read other pictures. Use rollout=native."
            )
        self._unchecked, self._due = self._unchecked - 1, False


@dataclass(slots=True, kw_only=True)
class VllmAnswers:
    """Greedy answers for evaluations: a `GreedyEngine`."""

    streams: ClassVar[bool] = True
    family: Family
    engine: VllmEngine

    def refresh(self, model: PreTrainedModel, gather: Gather | None = None) -> None:
        """Copy the weights of `model` into vLLM, as `VllmEngine.refresh`."""
        self.engine.refresh(model, gather)

    def release(self) -> None:
        """Free vLLM's memory until the next `refresh`."""
        self.engine.release()

    def answer(
        self,
        prompts: Sequence[Prompt],
        prefixes: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        batch_size: int,
        advance: Callable[[int], None],
    ) -> list[Completion]:
        """One greedy completion after each prompt and its forced tokens, as in `GreedyEngine`.

        Raises VllmMismatchError when vLLM's prompt tokens differ from the trainer's.
        """
        codec = self.family.codec()
        parameters = sampling_params(codec, max_tokens=max_new_tokens, seed=None, temperature=0.0, top_p=1.0, top_k=0)
        completions: list[Completion] = []
        for start in range(0, len(prompts), batch_size):  # So that the bar moves and a signal is seen.
            chosen = slice(start, start + batch_size)
            forced = [ForcedPrefix(prompt=p, forced=tuple(ids)) for p, ids in zip(prompts[chosen], prefixes[chosen], strict=True)]
            answers = self.engine.generate([request(self.family, one) for one in forced], [parameters] * len(forced))
            for one, answer in zip(forced, answers, strict=True):
                completions.append(completion_of(answer, one.row(self.family.prompt(one.prompt)).ids, codec.end))
            advance(len(forced))
        return completions


def request(family: Family, prefix: ForcedPrefix) -> dict[str, Any]:
    """A prompt and its forced tokens as vLLM takes them; it expands the picture's placeholder itself."""
    ids, picture = family.vllm_prompt(prefix.prompt)
    return {"prompt_token_ids": [*ids, *prefix.forced]} | ({"multi_modal_data": {"image": picture}} if picture is not None else {})


def sampling_params(codec: Codec, *, max_tokens: int, seed: int | None, temperature: float, top_p: float, top_k: int) -> Any:
    """vllm.SamplingParams with the end token and the banned tokens of a codec, and the log-probability of each sampled token."""
    return vllm().SamplingParams(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        max_tokens=max_tokens,
        seed=seed,
        logprobs=0,  # Of the sampled token alone.
        logit_bias=dict.fromkeys(codec.banned, -math.inf),
        stop_token_ids=[codec.end],
        detokenize=False,
    )


def completion_of(answer: Any, expected: Sequence[int], end: int) -> Completion:
    """The completion of a vLLM answer. Raises VllmMismatchError unless its prompt is `expected`."""
    if tuple(answer.prompt_token_ids) != tuple(expected):
        raise VllmMismatchError(
            f"vLLM read a prompt of {len(answer.prompt_token_ids)} tokens where the trainer reads {len(expected)}, or other ones: "
            f"it prepares pictures in another way. {USE_NATIVE}"
        )
    (output,) = answer.outputs
    ids = tuple(output.token_ids)
    logprobs = tuple(step[token].logprob for step, token in zip(output.logprobs, ids, strict=True))
    return Completion(ids=ids, logprobs=logprobs, finished=ids[-1] == end)
