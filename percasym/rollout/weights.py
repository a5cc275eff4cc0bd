"""The weights of a model as another engine is to hold them: adapters added in, the model itself left as it is.

Unlike merging and unmerging in place, nothing is rounded into the trained weights and back out of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

BASE = ".base_layer."
"""Where peft keeps the layer that an adapter sits on."""


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every parameter, as in a checkpoint whose adapters were merged; one merged tensor exists at a time."""
    for name, parameter in model.named_parameters():
        layer, adapted, _ = name.partition(BASE)
        if ".lora_" in name:
            continue
        weight = parameter.detach()
        if adapted and name.endswith(".weight"):
            adapter: Any = model.get_submodule(layer)
            weight = weight.float() + sum(adapter.get_delta_weight(active).detach() for active in adapter.active_adapters)
        yield name.replace(BASE, "."), weight
