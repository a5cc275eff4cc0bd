"""Groups sampled by vLLM, in the process of the trainer and on its GPU (`rollout=vllm`).

It has not been run against vLLM on a GPU: the tests run it against a stand-in with vLLM's interface (0.16 and later). Errors that would be
silent are checked at run time, on every machine: all of vLLM's weights must have been loaded, its prompt must equal the trainer's token for
token, and after the first two refreshes its log-probabilities must match the trainer's.

    pip install "percasym[vllm]" && python train.py paradigm=rl rollout=vllm scale=paper
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from percasym.config.sampling import Vllm
from percasym.config.schema import ConfigError
from percasym.models.base import Family, Row
from percasym.rollout.base import ForcedPrefix
from percasym.types import Completion, Demonstration, Prompt, Rollout

MAX_LOGPROB_GAP = 0.1
"""Mean |difference| of log-probabilities, nats per token, that kernels and bfloat16 may cause (our choice; wrong weights cause more)."""
NUM_CHECKS = 2
"""Refreshes after which log-probabilities are compared: that of the first weights, and that of the first update."""
NUM_COMPARED = 4
"""Rollouts in one comparison; each costs a forward of the trained model."""
SEED_RANGE = 2**63
"""vLLM stores a seed as a signed 64-bit integer."""
BASE_LAYER = ".base_layer."
"""Where peft keeps the layer under an adapter."""


class VllmMismatchError(RuntimeError):
    """vLLM does not sample from the model in training: other weights, or another prompt."""


@dataclass(slots=True, kw_only=True)
class VllmRollouts:
    """A `RolloutEngine` on the GPU of each rank, whose weights are overwritten at each refresh.

    Log-probabilities are over the whole vocabulary at temperature 1. At another temperature vLLM returns them over the allowed
    tokens, which differs by the probability of the banned ones, and cannot return them under top-p or top-k.
    """

    family: Family
    sampling: Vllm
    _llm: Any = field(default=None, init=False, repr=False)
    _model: PreTrainedModel | None = field(default=None, init=False, repr=False)
    _unchecked: int = field(default=NUM_CHECKS, init=False, repr=False)
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
        """Copy the weights of `model` into vLLM and reset its caches.

        Raises VllmMismatchError when a weight of vLLM's was not loaded.
        """
        self._llm = self._llm or _started(model, self.sampling)
        (unloaded,) = self._llm.apply_model(lambda module: _load(module, merged_weights(model)))
        if unloaded:
            raise VllmMismatchError(
                f"vLLM found no values for {len(unloaded)} of its weights, {unloaded[0]} among them. Use rollout=native."
            )
        self._llm.reset_prefix_cache()
        self._llm.llm_engine.reset_encoder_cache()  # Features of cached pictures come from the old vision tower.
        self._model, self._due = model, self._unchecked > 0

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
        codec, llm = self.family.codec(), self._llm
        assert llm is not None, "refresh comes before generate"
        prefixes = ForcedPrefix.all(codec, prompts, forced)
        requests = [self._request(prefix) for prefix in prefixes for _ in range(group_size)]
        parameters = [
            self._parameters(prompt.key.entropy("rollout", seed, i) % SEED_RANGE) for prompt in prompts for i in range(group_size)
        ]
        answers = iter(llm.generate(requests, parameters, use_tqdm=False))
        groups: list[list[Rollout]] = []
        for prefix, row in zip(prefixes, prompt_rows or [self.family.prompt(prompt) for prompt in prompts], strict=True):
            expected = prefix.row(row).ids
            groups.append([prefix.rollout(codec, _completion(next(answers), expected, codec.end)) for _ in range(group_size)])
            advance(group_size)
        if self._due and forced is None:
            self._compare([rollout for group in groups for rollout in group][:NUM_COMPARED])
        return groups

    def _request(self, prefix: ForcedPrefix) -> dict[str, Any]:
        ids, picture = self.family.vllm_prompt(prefix.prompt)
        return {"prompt_token_ids": [*ids, *prefix.forced]} | ({"multi_modal_data": {"image": picture}} if picture is not None else {})

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
        gap = logprob_gap(self._model, self.family, rollouts, self.sampling.temperature)
        if not gap <= MAX_LOGPROB_GAP:
            raise VllmMismatchError(
                f"The log-probabilities of vLLM and of the trainer differ by {gap:.3g} nats a token on {len(rollouts)} rollouts "
                f"(at most {MAX_LOGPROB_GAP} is rounding): they do not hold the same weights, or read the same pictures. "
                "Use rollout=native."
            )
        self._unchecked, self._due = self._unchecked - 1, False


def _vllm() -> Any:
    """The vllm module, imported on first use. Raises ConfigError when it is not installed."""
    try:
        import vllm
    except ImportError as error:
        raise ConfigError(f'rollout=vllm needs vLLM ({error}). Run `pip install "percasym[vllm]"`, or use rollout=native.') from error
    return vllm


def _started(model: PreTrainedModel, sampling: Vllm) -> Any:
    """A vLLM engine for models of this shape, with random weights."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # A separate process could not read the trainer's tensors.
    shared = torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    return _vllm().LLM(
        model=model.name_or_path,
        load_format="dummy",
        dtype="bfloat16",
        gpu_memory_utilization=sampling.memory_frac,
        max_model_len=sampling.max_prompt_tokens + sampling.max_new_tokens,
        limit_mm_per_prompt={"image": 1, "video": 0},
        logprobs_mode="raw_logprobs" if sampling.temperature == 1 else "processed_logprobs",
        distributed_executor_backend="external_launcher"
        if shared
        else None,  # One engine for each rank, outside the trainer's process groups.
    )


def _load(module: Any, weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Load the weights; returns the names of vLLM's parameters that received no value."""
    loaded = module.load_weights(weights)
    return sorted({name for name, _ in module.named_parameters()} - loaded)


def _completion(answer: Any, expected: Sequence[int], end: int) -> Completion:
    if tuple(answer.prompt_token_ids) != tuple(expected):
        raise VllmMismatchError(
            f"vLLM read a prompt of {len(answer.prompt_token_ids)} tokens where the trainer reads {len(expected)}, or other ones: "
            "it prepares pictures in another way. Use rollout=native."
        )
    (output,) = answer.outputs
    ids = tuple(output.token_ids)
    logprobs = tuple(step[token].logprob for step, token in zip(output.logprobs, ids, strict=True))
    return Completion(ids=ids, logprobs=logprobs, finished=ids[-1] == end)


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every parameter, with adapters merged into them; one merged tensor exists at a time.

    Unlike merging and unmerging in place, this leaves the trained weights untouched, so they collect no rounding errors.
    """
    for name, parameter in model.named_parameters():
        layer, adapted, _ = name.partition(BASE_LAYER)
        if ".lora_" in name:
            continue
        weight = parameter.detach()
        if adapted and name.endswith(".weight"):
            adapter: Any = model.get_submodule(layer)
            weight = weight.float() + sum(adapter.get_delta_weight(active).detach() for active in adapter.active_adapters)
        yield name.replace(BASE_LAYER, "."), weight


@torch.inference_mode()
def logprob_gap(model: PreTrainedModel, family: Family, rollouts: Sequence[Rollout], temperature: float) -> float:
    """Mean |difference|, in nats per token, of the log-probabilities of rollouts from those of `model`; one forward for each rollout."""
    trunk, head, device = model.get_submodule("model"), model.get_submodule("lm_head"), next(model.parameters()).device
    was_training = model.training
    model.eval()
    gaps = []
    for rollout in rollouts:
        prompt, completion = family.prompt(rollout.prompt), rollout.completion
        assert completion.logprobs is not None, "a rollout engine gives the log-probability of each token"
        row = prompt.followed_by(completion.ids, rollout.labels)
        hidden = trunk(**family.collate([row]).to(device).arguments, use_cache=False).last_hidden_state  # [1, T, D]
        logprobs = (head(hidden[0, len(prompt.ids) - 1 : -1]).float() / temperature).log_softmax(-1)  # [N, V]
        own = logprobs.gather(1, torch.tensor(completion.ids, device=device)[:, None])[:, 0]
        gaps.append((own - torch.tensor(completion.logprobs, device=device)).abs())
    model.train(was_training)
    return torch.cat(gaps).mean().item()
