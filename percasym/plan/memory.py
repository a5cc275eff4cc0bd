"""Bytes on one GPU, by part: while it trains, while it evaluates, and in RL while it samples and asks for rewards.

Everything is float32 except what is computed (activations, rounded copies) and what rests under adapters. ZeRO in DeepSpeed 0.19:

| held in full by each rank | stage 0 | 1 | 2 | 3 |
|---|---|---|---|---|
| weights | yes | yes | yes | 1/N |
| master copy of what is trained | - | 1/N | 1/N | 1/N |
| open gradient | yes | yes, then 1/N twice | 1/N, joined for the step | 1/N, joined for the step |
| gradient of one span, set aside | yes | 1/N | 1/N | 1/N |
| AdamW | yes | 1/N | 1/N | 1/N |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from percasym.models.anatomy.base import Anatomy
from percasym.plan.activations import WIDE, stack_bytes
from percasym.plan.layout import Answers, Layout
from percasym.plan.lengths import Lengths
from percasym.plan.parameters import Parameters

BUCKET = 500_000_000  # Elements of ZeRO's reduce bucket (DeepSpeed's default), allocated whole from stage 1 on.
LIVE = 1_000_000_000  # Elements that stage 3 keeps gathered at most (stage3_max_live_parameters, DeepSpeed's default).
CHUNK = 2**27  # Bytes of the logits of one chunk (percasym.objectives.token_nll.CHUNK_BYTES; a test keeps them equal).
RESERVE = 2 * 10**9  # CUDA context, NCCL, kernel workspaces and fragments (our choice).

Bytes = Mapping[str, int]


def weights_bytes(parameters: Parameters, layout: Layout) -> int:
    """All weights of the model, whoever holds them."""
    return WIDE * (parameters.total - parameters.resting) + layout.computing_bytes * parameters.resting


def states(parameters: Parameters, layout: Layout) -> dict[str, int]:
    """What stays between steps and grows with the model: the tensors that ZeRO splits, on a GPU or, with offload, in the host's memory."""
    stage, ranks, trained = layout.zero_stage, layout.num_ranks, WIDE * parameters.num_trained
    part = -(-trained // ranks)
    gradients = {0: trained, 1: max(trained, 2 * part), 2: 2 * part, 3: 2 * part}[stage]
    weights = weights_bytes(parameters, layout)
    return {
        "weights": -(-weights // ranks) if stage == 3 else weights,
        "master weights": part if stage else 0,  # Stage 3 too: 0.19.8 means to share it, but takes the device's name for another device.
        "gradients": gradients,
        "span gradient": layout.sets_aside * (part if stage else trained),
        "optimizer": 2 * (part if stage else trained),
    }


def on_gpu(parameters: Parameters, layout: Layout) -> dict[str, int]:
    """Of the states, what a GPU holds: with offload, the weights and what is on its way."""
    held = states(parameters, layout)
    if layout.offload:
        held |= {"master weights": 0, "span gradient": 0, "optimizer": 0}
        held["gradients"] = WIDE * parameters.num_trained if layout.zero_stage == 1 else 0  # Reduced ones leave at once.
    return held


def on_host(parameters: Parameters, layout: Layout) -> Bytes:
    """What a rank holds in the host's memory with `engine.offload=true`."""
    if not layout.offload:
        return {}
    part = -(-WIDE * parameters.num_trained // layout.num_ranks)
    aside = part if layout.sets_aside else 0
    copies = 0 if layout.zero_stage == 3 else part  # The other stages bring the weights back through a copy.
    return {"master weights": part, "gradients": 2 * part, "span gradient": aside, "optimizer": 2 * part, "copied weights": copies}


def reference_bytes(parameters: Parameters, layout: Layout) -> int:
    """The model that RL started from, for its KL term: all of it on every rank whatever ZeRO splits, adapters too, all in float32."""
    return WIDE * parameters.total if layout.sampled and layout.sampled.reference else 0


def training(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> Bytes:
    """Bytes at the height of a step; rows are padded to the longest sample, in RL to the longest that a rollout can be."""
    held = on_gpu(parameters, layout)
    computing = layout.computing_bytes
    rounded = computing * parameters.multiplied if computing != WIDE else 0
    gathered = WIDE * min(LIVE, parameters.total) if layout.zero_stage == 3 and layout.num_ranks > 1 else 0
    return held | {
        "reference": reference_bytes(parameters, layout),
        "ZeRO buffers": gathered + (WIDE * BUCKET if layout.zero_stage else 0),
        "rounded weights": rounded,
        "activations": _activations(anatomy, parameters, layout, lengths),
        "logits": _logits(anatomy, parameters, layout),
        "reserve": RESERVE,
    }


def evaluation(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> Bytes:
    """Bytes while the model is evaluated."""
    return answering(anatomy, parameters, layout, lengths, layout.evaluation)


def rollouts(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> Bytes:
    """Bytes while rollouts are sampled, or while rewards ask the model (batches of an evaluation, as long as a rollout): the larger.

    Empty where nothing is sampled.
    """
    if layout.sampled is None:
        return {}
    asked = replace(layout.evaluation, max_new_tokens=layout.sampled.max_new_tokens)
    decoded = [answers for answers in (layout.sampled.decoded, asked) if answers]
    return max((answering(anatomy, parameters, layout, lengths, answers) for answers in decoded), key=lambda held: sum(held.values()))


def answering(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths, answers: Answers) -> Bytes:
    """Bytes while the model decodes; under stage 3 its weights are gathered whole on every rank."""
    held = on_gpu(parameters, layout)
    held["span gradient"] = 0
    held["gradients"] = held["gradients"] // 2 if layout.zero_stage == 3 else 0  # Stage 3 keeps its buffer, the others drop theirs.
    width = layout.eval_bytes
    language, positions = anatomy.language, math.ceil(lengths.prefix) + answers.max_new_tokens  # At most: with p* given, and all written.
    pair = 2 * language.kv_heads * language.head_dim * language.layers * width
    prompt = round(lengths.prompt + lengths.picture)
    prefill = stack_bytes(language, prompt, rows=answers.prompts, computing=width, checkpointing=False, eager=layout.eager)
    return held | {
        "reference": reference_bytes(parameters, layout),
        "ZeRO buffers": WIDE * BUCKET if layout.zero_stage == 3 else 0,  # Stage 3 keeps its bucket, the others drop theirs.
        "gathered weights": weights_bytes(parameters, layout) if layout.zero_stage == 3 and layout.num_ranks > 1 else 0,
        "rounded weights": width * parameters.multiplied if width != WIDE else 0,
        "key-value cache": answers.rows * positions * pair,
        "activations": prefill // language.layers,  # Nothing is kept: one layer at a time.
        "logits": answers.logit_bytes * answers.rows * anatomy.vocabulary,
        "reserve": RESERVE,
    }


def _activations(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> int:
    """The language model always keeps its own; the vision tower only if something in it is trained."""
    longest = lengths.longest
    if layout.sampled:
        longest = math.ceil(lengths.prompt) + lengths.picture + layout.sampled.max_new_tokens
    stacks = [(anatomy.language, longest)]
    if parameters.trained["vision"]:
        stacks.append((anatomy.vision, lengths.patches))
    return sum(
        stack_bytes(
            stack,
            positions,
            rows=layout.rows,
            computing=layout.computing_bytes,
            checkpointing=layout.checkpointing,
            eager=layout.eager,
        )
        for stack, positions in stacks
    )


def _logits(anatomy: Anatomy, parameters: Parameters, layout: Layout) -> int:
    """Two buffers of one chunk, the head rounded, and its gradient before it is added to the open one."""
    head = anatomy.vocabulary * anatomy.language.hidden
    rounded = layout.computing_bytes * head if layout.computing_bytes != WIDE else 0
    fresh = WIDE * head if parameters.trained["language"] and not layout.adapters else 0
    return 2 * CHUNK + rounded + fresh
