"""Groups sampled by vLLM, in the process of the trainer and on its GPU (`rollout=vllm`).

It has not been run against vLLM on a GPU: the tests drive it against a stand-in with vLLM's interface (0.16 and later). What
could go wrong in silence is checked on every machine: all of vLLM's weights must have been loaded, the prompt that it read
must be the trainer's token for token, and after the first two refreshes its log-probabilities must be the trainer's.

    pip install "percasym[vllm]" && python train.py paradigm=rl rollout=vllm scale=paper
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from percasym.config.sampling import Vllm
from percasym.config.schema import ConfigError
from percasym.models.base import Family, Row
from percasym.rollout.agreement import disagreement
from percasym.rollout.base import ForcedPrefix
from percasym.rollout.weights import merged_weights
from percasym.types import Completion, Prompt, Rollout

BOUND = 0.1
"""Mean |difference| of log-probabilities, nats a token, that kernels and bfloat16 may make (our choice; a wrong weight makes several)."""
CHECKS = 2
"""Refreshes after which rollouts are compared: the first weights, and the first update of them."""
COMPARED = 4
"""Rollouts in one comparison; each costs the trainer a forward."""
SEEDS = 2**63
"""vLLM keeps a seed in 64 bits with sign."""


class OutOfStepError(RuntimeError):
    """vLLM does not sample from the model in training."""


@dataclass(slots=True, kw_only=True)
class VllmRollouts:
    """A `RolloutEngine` on one GPU a rank, whose weights are overwritten at each refresh.

    Log-probabilities are those of the whole vocabulary at temperature 1. At another temperature vLLM gives them over the
    tokens that are allowed, which differ by the chance of the banned ones, and cannot give them under top-p or top-k.
    """

    family: Family
    sampling: Vllm
    _llm: Any = field(default=None, init=False, repr=False)
    _model: PreTrainedModel | None = field(default=None, init=False, repr=False)
    _unchecked: int = field(default=CHECKS, init=False, repr=False)
    _due: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise ConfigError without vLLM, and for sampling whose log-probabilities it cannot give."""
        _vllm()
        sampling = self.sampling
        if sampling.temperature != 1 and (sampling.top_k or sampling.top_p < 1):
            raise ConfigError(
                f"rollout=vllm gives no log-probabilities of the whole vocabulary at rollout.temperature={sampling.temperature} under "
                "top_p or top_k. Leave those at 1 and 0, or set rollout.temperature=1, or use rollout=native."
            )

    def refresh(self, model: PreTrainedModel) -> None:
        """Copy the weights of `model` into vLLM and drop all that it remembers of the old ones.

        Raises OutOfStepError when a weight of vLLM's was not loaded.
        """
        self._llm = self._llm or _started(model, self.sampling)
        (unloaded,) = self._llm.apply_model(lambda module: _load(module, merged_weights(model)))
        if unloaded:
            raise OutOfStepError(f"vLLM found no values for {len(unloaded)} of its weights, {unloaded[0]} among them. Use rollout=native.")
        self._llm.reset_prefix_cache()
        self._llm.llm_engine.reset_encoder_cache()  # Image features too: vLLM knows a picture again, but not that the tower has learned.
        self._model, self._due = model, self._unchecked > 0

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        group_size: int,
        seed: int,
        asked: Sequence[Row] | None = None,
        stated: Sequence[str] | None = None,
        advance: Callable[[int], None] = lambda num_rows: None,
    ) -> list[list[Rollout]]:
        """`group_size` rollouts of each prompt, as `RolloutEngine` says.

        Raises OutOfStepError when vLLM read another prompt than the trainer does, or its log-probabilities differ from the trainer's.
        """
        codec, llm = self.family.codec(), self._llm
        assert llm is not None, "refresh comes before generate"
        openings = ForcedPrefix.all(codec, prompts, stated)
        requests = [self._request(opening) for opening in openings for _ in range(group_size)]
        parameters = [self._parameters(prompt.key.entropy("rollout", seed, i) % SEEDS) for prompt in prompts for i in range(group_size)]
        answers = iter(llm.generate(requests, parameters, use_tqdm=False))
        groups: list[list[Rollout]] = []
        for opening, row in zip(openings, asked or [self.family.prompt(prompt) for prompt in prompts], strict=True):
            expected = opening.row(row).ids
            groups.append([opening.rollout(codec, _completion(next(answers), expected, codec.end)) for _ in range(group_size)])
            advance(group_size)
        if self._due and stated is None:
            self._compare([rollout for group in groups for rollout in group][:COMPARED])
        return groups

    def _request(self, opening: ForcedPrefix) -> dict[str, Any]:
        ids, picture = self.family.served(opening.prompt)
        return {"prompt_token_ids": [*ids, *opening.forced]} | ({"multi_modal_data": {"image": picture}} if picture is not None else {})

    def _parameters(self, seed: int) -> Any:
        sampling, codec = self.sampling, self.family.codec()
        return _vllm().SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_new_tokens,
            seed=seed,
            logprobs=0,  # Of the sampled token alone.
            logit_bias=dict.fromkeys(codec.banned, -math.inf),
            stop_token_ids=[codec.end],
            detokenize=False,
        )

    def _compare(self, rollouts: Sequence[Rollout]) -> None:
        assert self._model is not None
        gap = disagreement(self._model, self.family, rollouts, self.sampling.temperature)
        if not gap <= BOUND:
            raise OutOfStepError(
                f"The log-probabilities of vLLM and of the trainer differ by {gap:.3g} nats a token on {len(rollouts)} rollouts "
                f"(at most {BOUND} is rounding): they do not hold the same weights, or read the same pictures. Use rollout=native."
            )
        self._unchecked, self._due = self._unchecked - 1, False


def _vllm() -> Any:
    """The library, where it is installed; imported here alone."""
    try:
        import vllm
    except ImportError as error:
        raise ConfigError(f'rollout=vllm needs vLLM ({error}). Run `pip install "percasym[vllm]"`, or use rollout=native.') from error
    return vllm


def _started(model: PreTrainedModel, sampling: Vllm) -> Any:
    """An engine for checkpoints of this model's shape; its weights are still random."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # In another process it could not read the trainer's tensors.
    shared = torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    return _vllm().LLM(
        model=model.name_or_path,
        load_format="dummy",
        dtype="bfloat16",
        gpu_memory_utilization=sampling.memory_frac,
        max_model_len=sampling.max_prompt_tokens + sampling.max_new_tokens,
        limit_mm_per_prompt={"image": 1, "video": 0},
        logprobs_mode="raw_logprobs" if sampling.temperature == 1 else "processed_logprobs",
        distributed_executor_backend="external_launcher" if shared else None,  # Each rank its own engine, beside the trainer's groups.
    )


def _load(module: Any, weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Load them; the names of vLLM's parameters that got nothing."""
    loaded = module.load_weights(weights)
    return sorted({name for name, _ in module.named_parameters()} - loaded)


def _completion(answer: Any, expected: Sequence[int], end: int) -> Completion:
    if tuple(answer.prompt_token_ids) != tuple(expected):
        raise OutOfStepError(
            f"vLLM read a prompt of {len(answer.prompt_token_ids)} tokens where the trainer reads {len(expected)}, or other ones: "
            "it prepares pictures in another way. Use rollout=native."
        )
    (said,) = answer.outputs
    ids = tuple(said.token_ids)
    logprobs = tuple(step[token].logprob for step, token in zip(said.logprobs, ids, strict=True))
    return Completion(ids=ids, logprobs=logprobs, finished=ids[-1] == end)
