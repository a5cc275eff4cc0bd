"""What a forward keeps for its backward pass, in bytes for each position and layer.

Counted by hand from the layers of transformers 5.23 and measured in tests/unit/plan (saved tensors of a real forward).
Residual stream and norms are float32 under autocast; c is the size of the computing type; H, Q, K, I are the widths of the
residual stream, the queries, the keys, and the hidden layer of the MLP.
"""

from __future__ import annotations

from percasym.models.anatomy.base import Stack

WIDE = 4  # Bytes of float32.


def layer_bytes(stack: Stack, *, computing: int) -> int:
    """Bytes that one layer keeps of one position, attention scores apart.

    An RMSNorm, written out, keeps its input, the normalised input and the result; a fused LayerNorm keeps input and result.
    """
    c, hidden = computing, stack.hidden
    queries, keys = stack.heads * stack.head_dim, stack.kv_heads * stack.head_dim
    norms = 2 * hidden * (2 * WIDE + c if stack.rms else WIDE + c)
    heads = (queries + keys) * (WIDE + c) if stack.rms else 0  # Each head's own norm, in float32.
    attention = c * (queries + 2 * keys + queries)  # Rotated queries and keys, values, and the result.
    mlp = c * stack.mlp * (4 if stack.gated else 2)  # Before and after the activation; with a gate, also what it multiplies.
    return norms + heads + attention + mlp


def stack_bytes(stack: Stack, positions: int, *, rows: int, computing: int, checkpointing: bool, eager: bool) -> int:
    """Bytes that a stack keeps of `rows` sequences of `positions` each.

    With checkpointing: the float32 input of each layer, and all of the one layer that is being computed again.
    """
    layer = rows * positions * layer_bytes(stack, computing=computing)
    if eager:
        layer += rows * positions**2 * stack.heads * (WIDE + (computing if computing != WIDE else 0))  # Softmax, and it rounded.
    if checkpointing:
        return layer + rows * positions * stack.layers * stack.hidden * WIDE
    return stack.layers * layer
