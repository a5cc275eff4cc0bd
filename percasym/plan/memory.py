"""Bytes of one GPU by component: during a training step, during evaluation, and in RL during sampling and reward computation.

Everything is float32 except activations, rounded copies of weights, frozen linear weights under adapters, and with
`engine.weights=bfloat16` the weights and the stored gradient of a span. ZeRO in DeepSpeed 0.19:

| held by each rank | stage 0 | 1 | 2 | 3 |
|---|---|---|---|---|
| weights | all | all | all | 1/N |
| master copy of trained weights | - | 1/N | 1/N | 1/N |
| accumulated gradient | all | 1/N, twice at the step | 1/N, twice at the step | 1/N |
| cut tensors | - | whole | whole | - |
| stored gradient of one span | all | 1/N | 1/N | 1/N |
| AdamW | all | 1/N | 1/N | 1/N |

A tensor that lies across the end of a rank's part is reduced to both ranks and held whole there until the next backward pass. Which tensor
that is depends on the order of parameters; the largest trained one is planned. Measured on two ranks in
tests/unit/plan/memory_on_two_ranks.py.

Activations are counted by hand from the layers of transformers 5.23, and compared in tests/unit/plan with the saved tensors of a real
forward. The residual stream and norms are float32 under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from percasym.models.anatomy import Anatomy, Stack
from percasym.plan.inputs import Answers, Layout, Lengths, Parameters

FLOAT32 = 4  # Bytes.
BUCKET = 500_000_000  # Elements of ZeRO's reduce bucket (DeepSpeed's default), fully allocated from stage 1 on.
LIVE = 1_000_000_000  # Maximum elements that stage 3 keeps gathered (stage3_max_live_parameters, DeepSpeed's default).
CHUNK = 2**29  # Bytes of the logits of one chunk on a GPU (percasym.objectives.token_nll.CHUNK_BYTES; a test keeps them equal).
GRANULE = 64  # Tokens; the buffers of the key-value cache hold a multiple (percasym.rollout.cache.GRANULE; a test keeps them equal).
SAVED_AT_ONCE = 50 * 10**9  # Bytes of one weight file (transformers' max_shard_size): its tensors leave a GPU together.
RESERVE = 2 * 10**9  # CUDA context, NCCL, kernel workspaces and fragmentation (our choice).

Bytes = Mapping[str, int]


def weights_bytes(parameters: Parameters, layout: Layout) -> int:
    """All weights of the model, before sharding."""
    if layout.stored_bytes != FLOAT32:
        return layout.stored_bytes * parameters.total
    return FLOAT32 * (parameters.total - parameters.frozen_linear) + layout.computing_bytes * parameters.frozen_linear


def states(parameters: Parameters, layout: Layout) -> dict[str, int]:
    """The model states that ZeRO shards, wherever they are stored (GPU or, with offload, host memory)."""
    stage, ranks, trained = layout.zero_stage, layout.num_ranks, FLOAT32 * parameters.num_trained
    shard = -(-trained // ranks)
    cut = FLOAT32 * parameters.largest if ranks > 1 else 0
    gradients = {0: trained, 1: 2 * shard + cut, 2: 2 * shard + cut, 3: shard}[stage]
    weights = weights_bytes(parameters, layout)
    kept = layout.stored_bytes * (shard if stage else trained) // FLOAT32
    return {
        "weights": -(-weights // ranks) if stage == 3 else weights,
        "master weights": shard if stage else 0,  # In stage 3 too, because of a wrong comparison of device names in 0.19.8.
        "gradients": gradients,
        "span gradient": layout.stores_span_gradient * kept,
        "optimizer": 2 * (shard if stage else trained),
    }


def on_gpu(parameters: Parameters, layout: Layout) -> dict[str, int]:
    """The model states on the GPU: with offload, the weights and the gradients in transfer."""
    held = states(parameters, layout)
    if layout.offload:
        held |= {"master weights": 0, "span gradient": 0, "optimizer": 0}
        held["gradients"] = (
            FLOAT32 * parameters.num_trained if layout.zero_stage == 1 else 0
        )  # In stage 2 and 3 reduced gradients are moved at once.
    return held


def on_host(parameters: Parameters, layout: Layout) -> Bytes:
    """The model states of a rank in host memory with `engine.offload=true`."""
    if not layout.offload:
        return {}
    shard = -(-FLOAT32 * parameters.num_trained // layout.num_ranks)
    span_gradient = layout.stored_bytes * shard // FLOAT32 if layout.stores_span_gradient else 0
    copies = 0 if layout.zero_stage == 3 else shard  # The other stages copy the updated weights back.
    return {
        "master weights": shard,
        "gradients": 2 * shard,
        "span gradient": span_gradient,
        "optimizer": 2 * shard,
        "copied weights": copies,
    }


def host(parameters: Parameters, layout: Layout) -> Bytes:
    """Host memory of one machine: while its first rank loads the model in float32, or collects it for a checkpoint, and then in training.

    What the ranks keep there in training (offload, a vLLM that sleeps) stands beside it while a checkpoint is written. Stage 3 collects the
    whole model for it, the other stages write from the GPU, one file at a time. Reading a checkpoint takes what loading the model takes.
    """
    training = layout.ranks_of_machine * (sum(on_host(parameters, layout).values()) + asleep_bytes(parameters, layout))
    whole = FLOAT32 * parameters.total
    written = FLOAT32 * parameters.num_trained if layout.adapters else whole
    return {"loading": whole, "training": training, "saving": training + (whole if layout.zero_stage == 3 else min(written, SAVED_AT_ONCE))}


def asleep_bytes(parameters: Parameters, layout: Layout) -> int:
    """A rank's weights of a vLLM that sleeps, in the compute type."""
    used = layout.vllm_evaluation or (layout.sampled and layout.sampled.vllm_frac)
    return layout.computing_bytes * parameters.total // layout.tensor_parallel if used and layout.vllm_sleeps else 0


def vllm_bytes(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> int:
    """The least that vLLM needs of one GPU: its weights, and keys and values of the longest sequence, in the compute type; 0 without it."""
    rolled = layout.sampled.max_new_tokens if layout.sampled and layout.sampled.vllm_frac else 0
    longest = max(rolled, layout.evaluation.max_new_tokens if layout.vllm_evaluation else 0)
    if not longest:
        return 0
    language = anatomy.language
    cache = 2 * language.kv_heads * language.head_dim * language.layers * (math.ceil(lengths.prefix) + longest)
    return layout.computing_bytes * (parameters.total + cache) // layout.tensor_parallel


def checkpoint_bytes(parameters: Parameters, layout: Layout) -> int:
    """One checkpoint of all ranks: weights (or adapters) and AdamW's two moments, all float32."""
    written = parameters.num_trained if layout.adapters else parameters.total
    return FLOAT32 * (written + 2 * parameters.num_trained)


def reference_bytes(parameters: Parameters, layout: Layout) -> int:
    """The reference model of RL's KL term: with adapters the model without them; under stage 3 a part; else all of it.

    A whole copy stores its linear layers in the compute type.
    """
    if not (layout.sampled and layout.sampled.reference) or layout.adapters:
        return 0
    total = sum(parameters.base.values())
    if layout.zero_stage == 3:
        return -(-layout.stored_bytes * total // layout.num_ranks)
    return FLOAT32 * (total - parameters.linear) + layout.computing_bytes * parameters.linear


def rounded_bytes(parameters: Parameters, layout: Layout) -> int:
    """Rounded copies of weights that autocast makes in a step and the graph keeps: all, or with checkpointing those of one layer."""
    if layout.computing_bytes == layout.stored_bytes:
        return 0
    return layout.computing_bytes * (parameters.largest_layer if layout.checkpointing else parameters.multiplied)


def training(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> Bytes:
    """Peak bytes of a training step; rows are padded to the longest sample, in RL to the maximum length of a rollout."""
    held = on_gpu(parameters, layout)
    gathered = layout.stored_bytes * min(LIVE, parameters.total) if layout.zero_stage == 3 and layout.num_ranks > 1 else 0
    return held | {
        "reference": reference_bytes(parameters, layout),
        "ZeRO buffers": gathered + (FLOAT32 * BUCKET if layout.zero_stage else 0),
        "rounded weights": rounded_bytes(parameters, layout),
        "activations": _activations(anatomy, parameters, layout, lengths),
        "logits": _logits(anatomy, parameters, layout),
        "reserve": RESERVE,
    }


def evaluation(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> Bytes:
    """Peak bytes of an evaluation; where vLLM answers, the share that it takes is added by the plan."""
    if layout.vllm_evaluation:
        return resting(parameters, layout)
    return decoding(anatomy, parameters, layout, lengths, layout.evaluation)


def rollouts(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> Bytes:
    """Peak bytes of sampling rollouts, or of rewards that query the model (batches of an evaluation, rollouts' length), if larger.

    Empty for supervised training.
    """
    if layout.sampled is None:
        return {}
    if not layout.sampled.queries:
        return resting(parameters, layout)
    queries = replace(layout.evaluation, max_new_tokens=layout.sampled.max_new_tokens)
    held = [decoding(anatomy, parameters, layout, lengths, queries)]
    if layout.sampled.decoded:
        copied = {"decoder copy": layout.sampled.copied_bytes * parameters.base["language"]}
        held.append({**decoding(anatomy, parameters, layout, lengths, layout.sampled.decoded), **copied})
    return max(held, key=lambda each: sum(each.values()))


def resting(parameters: Parameters, layout: Layout) -> Bytes:
    """What stays on the GPU while another engine decodes: the model states, and one gathered tensor at a time to refresh its weights."""
    held = on_gpu(parameters, layout)
    held["span gradient"] = 0
    held["gradients"] = held["gradients"] if layout.zero_stage == 3 else 0
    buffers = FLOAT32 * BUCKET + 2 * layout.stored_bytes * parameters.largest if layout.zero_stage == 3 else 0
    return held | {"reference": reference_bytes(parameters, layout), "ZeRO buffers": buffers, "reserve": RESERVE}


def decoding(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths, answers: Answers) -> Bytes:
    """Peak bytes of decoding; under stage 3 the full weights are gathered on every rank."""
    held = on_gpu(parameters, layout)
    held["span gradient"] = 0
    held["gradients"] = held["gradients"] if layout.zero_stage == 3 else 0  # Stage 3 keeps its buffer, the others free theirs.
    width = layout.eval_bytes
    language = anatomy.language
    positions = math.ceil((math.ceil(lengths.prefix) + answers.max_new_tokens) / GRANULE) * GRANULE  # At most: p* given, all tokens used.
    bytes_per_position = 2 * language.kv_heads * language.head_dim * language.layers * width
    prompt = round(lengths.prompt + lengths.picture)
    prefill = stack_bytes(language, prompt, rows=answers.prompts, computing=width, checkpointing=False, eager=layout.eager)
    return held | {
        "reference": reference_bytes(parameters, layout),
        "ZeRO buffers": FLOAT32 * BUCKET if layout.zero_stage == 3 else 0,  # Stage 3 keeps its bucket, the others free theirs.
        "gathered weights": weights_bytes(parameters, layout) if layout.zero_stage == 3 and layout.num_ranks > 1 else 0,
        "rounded weights": width * parameters.multiplied if width != FLOAT32 == layout.stored_bytes else 0,
        "key-value cache": answers.rows * positions * bytes_per_position,
        "activations": prefill // language.layers,  # Without a backward pass, one layer at a time.
        "logits": answers.logit_bytes * answers.rows * anatomy.vocabulary,
        "reserve": RESERVE,
    }


def _activations(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> int:
    """Activations of the language model, and of the vision tower only if it is trained."""
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
    """Two buffers of one chunk, the rounded head, and the head's gradient before it is accumulated."""
    head = anatomy.vocabulary * anatomy.language.hidden
    rounded = layout.computing_bytes * head if layout.computing_bytes != FLOAT32 == layout.stored_bytes else 0
    gradient = FLOAT32 * head if parameters.trained["language"] and not layout.adapters else 0
    return 2 * CHUNK + rounded + gradient


def layer_bytes(stack: Stack, *, computing: int) -> int:
    """Saved activations of one layer per position, without attention scores; `computing` is the size of the compute type in bytes.

    An RMSNorm in elementary operations saves its input, the normalised input and its output; a fused LayerNorm saves input and output.
    """
    c, hidden = computing, stack.hidden
    queries, keys = stack.heads * stack.head_dim, stack.kv_heads * stack.head_dim
    norms = 2 * hidden * (2 * FLOAT32 + c if stack.rms else FLOAT32 + c)
    heads = (queries + keys) * (FLOAT32 + c) if stack.rms else 0  # Norms of queries and keys, in float32.
    attention = c * (queries + 2 * keys + queries)  # Rotated queries and keys, values, and the output.
    mlp = c * stack.mlp * (4 if stack.gated else 2)  # Before and after the activation; with a gate, also both factors.
    return norms + heads + attention + mlp


def stack_bytes(stack: Stack, positions: int, *, rows: int, computing: int, checkpointing: bool, eager: bool) -> int:
    """Saved activations of a stack for `rows` sequences of `positions` each.

    With checkpointing: the float32 input of each layer, and all activations of the one layer that is being recomputed.
    """
    layer = rows * positions * layer_bytes(stack, computing=computing)
    if eager:
        layer += rows * positions**2 * stack.heads * (FLOAT32 + (computing if computing != FLOAT32 else 0))  # Softmax, also rounded.
    if checkpointing:
        return layer + rows * positions * stack.layers * stack.hidden * FLOAT32
    return stack.layers * layer
