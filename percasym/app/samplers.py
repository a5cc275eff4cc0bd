"""What decodes in a run: the engine of RL's rollouts and that of evaluations.

Where both are vLLM they share one, because a process can hold one.
"""

from __future__ import annotations

from percasym.config.sampling import Native, Sampling, Vllm
from percasym.config.schema import ConfigError
from percasym.config.settings import Settings
from percasym.rollout.base import GreedyEngine, RolloutEngine
from percasym.rollout.native import NativeAnswers, NativeRollouts


def rollout_engine(settings: Settings, sampling: Sampling, num_ranks: int = 1) -> RolloutEngine:
    """The engine that samples rollouts. Raises ConfigError when vLLM is chosen and not installed, or cannot sample so."""
    if isinstance(sampling, Vllm):
        require_vllm(settings)
        from percasym.rollout.vllm import VllmRollouts  # Imports vllm, which is optional.
        from percasym.rollout.vllm_engine import VllmEngine

        longest = max(sampling.max_new_tokens, settings.evaluation.max_new_tokens if settings.evaluation.engine == "vllm" else 0)
        mode = "raw_logprobs" if sampling.temperature == 1 else "processed_logprobs"
        engine = VllmEngine(options=sampling, max_new_tokens=longest, logprobs_mode=mode, num_ranks=num_ranks)
        return VllmRollouts(family=settings.family, sampling=sampling, engine=engine)
    assert isinstance(sampling, Native), f"{type(sampling).__name__} has no rollout engine"
    return NativeRollouts(family=settings.family, sampling=sampling)


def greedy_engine(settings: Settings, rollouts: RolloutEngine | None = None, num_ranks: int = 1) -> GreedyEngine:
    """The engine that answers in evaluations. Raises ConfigError when vLLM is chosen and not installed."""
    evaluation = settings.evaluation
    if evaluation.engine == "native":
        return NativeAnswers(family=settings.family)
    require_vllm(settings)
    from percasym.rollout.vllm import VllmAnswers, VllmRollouts  # Imports vllm, which is optional.
    from percasym.rollout.vllm_engine import VllmEngine

    if isinstance(rollouts, VllmRollouts):
        return VllmAnswers(family=settings.family, engine=rollouts.engine)
    options = Vllm(
        max_new_tokens=evaluation.max_new_tokens,
        gpu_memory_frac=evaluation.gpu_memory_frac,
        precision=evaluation.precision,
        tensor_parallel=evaluation.tensor_parallel,
    )
    engine = VllmEngine(options=options, max_new_tokens=evaluation.max_new_tokens, num_ranks=num_ranks)
    return VllmAnswers(family=settings.family, engine=engine)


def sampling_engine(settings: Settings, greedy: GreedyEngine) -> RolloutEngine | None:
    """What samples the answers of evaluations at temperature 1, with the weights of the last refresh of `greedy`'s engine.

    None where `evaluation.num_sampled` is 0.
    """
    evaluation = settings.evaluation
    if not evaluation.num_sampled:
        return None
    if evaluation.engine == "native":
        return NativeRollouts(
            family=settings.family, sampling=Native(max_new_tokens=evaluation.max_new_tokens, batch_size=evaluation.batch_size)
        )
    from percasym.rollout.vllm import VllmAnswers, VllmRollouts  # Imports vllm, which is optional.

    assert isinstance(greedy, VllmAnswers)
    return VllmRollouts(family=settings.family, sampling=Vllm(max_new_tokens=evaluation.max_new_tokens), engine=greedy.engine)


def require_vllm(settings: Settings) -> None:
    """Raise ConfigError for a family whose prompts vLLM is not given."""
    if not hasattr(settings.family, "vllm_prompt"):
        kind = type(settings.family).__name__
        raise ConfigError(
            f"vLLM answers for model=qwen3vl and model=internvl35, not for {kind}. Use rollout=native and evaluation.engine=native."
        )
