"""One engine of vLLM in a process of its own: agreement with the trainer, before and after moving its weights, as JSON on the last line.

    python tests/vllm/measure.py qwen3vl full            (a process cannot start a second engine: tests/vllm/test_engine.py runs this)
    python tests/vllm/measure.py qwen3vl full bfloat16   agreement alone, with both samplers in bfloat16
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import torch

from percasym.config.sampling import Native, Vllm
from percasym.models.adapt import Lora, part_of
from percasym.models.base import Family
from percasym.models.internvl35 import InternVL35
from percasym.models.qwen3vl import Qwen3VL
from percasym.rollout import vllm_engine
from percasym.rollout.agreement import Probes, logprob_gap
from percasym.rollout.native import NativeAnswers, NativeRollouts
from percasym.rollout.vllm import VllmAnswers, VllmRollouts
from percasym.rollout.vllm_engine import VllmEngine, VllmMismatchError
from percasym.tasks.base import prompt_as_text
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Prompt, SampleKey

TOKENS, GROUP = 24, 2
TIE = 1e-4
"""Two logits closer than this are a tie, which kernels may break differently."""


def moved(model: Any, family: Family, parts: set[str]) -> None:
    """Move the trained weights of some parts by a tenth of their spread."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            own = name.replace(".base_layer", "").split(".lora_")[0]
            if parameter.requires_grad and part_of(own, family.parts) in parts:
                spread = max(0.02, parameter.std(correction=0).item())  # The second factor of an adapter starts at zero.
                parameter += torch.randn(parameter.shape, generator=generator) * 0.1 * spread


def main(name: str, how: str, precision: str = "float32") -> dict[str, Any]:
    """Every measurement of one family, fully trained or with adapters on all three parts."""
    stock = {"qwen3vl": Qwen3VL, "internvl35": InternVL35}[name]
    family: Family = stock(lora=Lora(rank=4, targets=("language", "projector", "vision"))) if how == "lora" else stock()
    model, sampling = family.load().eval(), Vllm(max_new_tokens=TOKENS, precision=precision)  # type: ignore[arg-type]
    engine = VllmEngine(options=sampling, max_new_tokens=TOKENS)
    rollouts = VllmRollouts(family=family, sampling=sampling, engine=engine)
    native = NativeRollouts(family=family, sampling=Native(max_new_tokens=TOKENS))
    task = Sudoku(givens=(12, 14))
    samples = [task.sample(SampleKey(task=task.name, split="test", seed=0, index=index)) for index in range(4)]
    prompts = {"picture": [sample.prompt for sample in samples], "text": [prompt_as_text(sample) for sample in samples]}

    def gaps(of: Any) -> dict[str, float]:
        return {
            kind: logprob_gap(model, family, [one for group in of.generate(some, group_size=GROUP, seed=0) for one in group], 1.0)
            for kind, some in prompts.items()
        }

    if precision != "float32":
        lower = NativeRollouts(family=family, sampling=Native(max_new_tokens=TOKENS, precision=precision))  # type: ignore[arg-type]
        moved(model, family, {"vision", "projector", "language"})
        rollouts.refresh(model)
        lower.refresh(model)
        return {"refreshed": gaps(rollouts), "native": gaps(lower), "stale_after_refresh": stale(engine, model)}

    found: dict[str, Any] = {"limit": model.config.get_text_config().max_position_embeddings}
    before, reload = torch.random.get_rng_state(), vllm_engine.reload_weights

    def recording(llm: Any, weights: Any) -> None:
        found["stale_at_start"] = stale(engine, model)
        reload(llm, weights)

    vllm_engine.reload_weights = recording
    rollouts.refresh(model)
    vllm_engine.reload_weights = reload
    native.refresh(model)
    found["same_random_state"] = bool(torch.equal(before, torch.random.get_rng_state()))
    found["start"] = gaps(rollouts)
    found["crowded"] = crowded(rollouts, task)

    moved(model, family, {"vision"})
    found["vision_not_refreshed"] = gaps(replace_checks(rollouts))
    found["vision_stale"] = stale(engine, model)
    moved(model, family, {"projector", "language"})
    found["not_refreshed"] = gaps(rollouts)
    rollouts.refresh(model)
    found["refreshed"], found["native"] = gaps(rollouts), gaps(native)
    found["stale_after_refresh"] = stale(engine, model)
    found["answers"] = compared_answers(family, engine, model, [*prompts["picture"], *prompts["text"]])

    moved(model, family, {"language"})
    finish, vllm_engine.repack_heads = vllm_engine.repack_heads, lambda module, loaded: None
    try:
        rollouts.refresh(model)
        found["head_without_repacking"] = "no error"
    except VllmMismatchError as error:
        found["head_without_repacking"] = str(error)
    vllm_engine.repack_heads = finish
    rollouts.refresh(model)
    found["refreshed_again"] = gaps(rollouts)
    return found


def replace_checks(rollouts: VllmRollouts) -> VllmRollouts:
    """The same rollouts without the comparison of log-probabilities, to measure a gap that would be refused."""
    rollouts._unchecked, rollouts._due = 0, False
    return rollouts


def crowded(rollouts: VllmRollouts, task: Sudoku) -> dict[str, int]:
    """Sample a token after each of more prompts than one step of vLLM holds; one cut between two steps would raise on a CPU."""
    engine, family = rollouts.engine, rollouts.family
    assert engine._llm is not None
    room, used = engine._llm.llm_engine.vllm_config.scheduler_config.max_num_batched_tokens, 0
    prompts: list[Prompt] = []
    while used <= room:
        prompts.append(prompt_as_text(task.sample(SampleKey(task=task.name, split="test", seed=0, index=len(prompts)))))
        used += len(family.prompt(prompts[-1]).ids)
    short = VllmRollouts(family=family, sampling=replace(rollouts.sampling, max_new_tokens=1), engine=engine)
    return {"prompts": len(prompts), "rollouts": sum(len(group) for group in short.generate(prompts, group_size=1, seed=0))}


def stale(engine: VllmEngine, model: Any) -> list[str]:
    """Names of weights in which vLLM differs from the model."""
    probes = Probes(engine.dtype)
    for _ in probes.weights(vllm_engine.merged_weights(model)):
        pass
    (served,) = engine._llm.apply_model(lambda module: Probes.of_served(module, engine.dtype))
    return list(probes.mismatches(served))


def compared_answers(family: Family, engine: VllmEngine, model: Any, prompts: list[Any]) -> dict[str, int]:
    """Greedy answers of both engines: equal ones, those that part at a tie of two logits, and others."""
    ours, theirs = NativeAnswers(family=family), VllmAnswers(family=family, engine=engine)
    ours.refresh(model)
    none: list[tuple[int, ...]] = [()] * len(prompts)
    limits: dict[str, Any] = {"max_new_tokens": 4 * TOKENS, "batch_size": 4, "advance": lambda num: None}
    counts = {"equal": 0, "tie": 0, "other": 0}
    for prompt, a, b in zip(prompts, ours.answer(prompts, none, **limits), theirs.answer(prompts, none, **limits), strict=True):
        at = next((i for i, pair in enumerate(zip(a.ids, b.ids, strict=False)) if pair[0] != pair[1]), None)
        if at is None:
            counts["equal" if len(a.ids) == len(b.ids) else "other"] += 1
            continue
        row = family.prompt(prompt).followed_by(a.ids[:at], [-1] * at)
        with torch.inference_mode():
            logits = model(**family.collate([row]).arguments).logits[0, -1]
        counts["tie" if abs(float(logits[a.ids[at]] - logits[b.ids[at]])) < TIE else "other"] += 1
    return counts


if __name__ == "__main__":
    print("\n" + json.dumps(main(*sys.argv[1:])))
