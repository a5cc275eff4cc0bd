"""What of a model is trained, and at what price: adapters, frozen parts, activations computed again.

A family names the modules of three parts; everything here works on those names, so it serves any family:

    python train.py model.lora.rank=16 model.lora.targets=[language,projector]
    python train.py model.freeze=[vision,projector] model.gradient_checkpointing=true
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from percasym.config.schema import one_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Part = Literal["language", "projector", "vision"]
"""The language model with its embeddings and head; what maps image features into it; the vision tower."""
PARTS: tuple[Part, ...] = get_args(Part)
Names = Mapping[Part, Sequence[str]]
"""Dotted names of the modules of each part; the longest name that begins a parameter's own decides."""
Attention = Literal["sdpa", "eager", "flash_attention_2"]

ADAPTER = "adapter_config.json"
"""The file that tells an adapter directory (peft's format) from a whole checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank adapters on every linear layer of the chosen parts, except the head (`model.lora.*`).

    A layer W gains (alpha / rank) B A with A of [rank, in] and B of [out, rank], B zero at the start; all else is frozen.

    Source: Hu et al. 2021, "LoRA" (arXiv:2106.09685), through peft.
    """

    rank: int = 16
    """Rank of each adapter."""
    alpha: int = 32
    """Scale of the adapters; the usual choice is twice the rank."""
    dropout: float = 0.0
    """Share of the adapters' inputs that is dropped in training. Above 0, the two span gradients of one step see different masks."""
    targets: tuple[Part, ...] = ("language",)
    """Parts that carry adapters."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"model.lora.rank must be at least 1, got {self.rank}.")
        if self.alpha < 1:
            raise ValueError(f"model.lora.alpha must be at least 1, got {self.alpha}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.lora.dropout must lie in [0, 1), got {self.dropout}.")
        _known("model.lora.targets", self.targets)
        if not self.targets:
            raise ValueError(f"model.lora.targets names no part to adapt; choose among {', '.join(PARTS)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """The fields that every family has in common (`model.*`)."""

    lora: Lora | None = None
    """Train adapters only; `model.lora.rank=16` alone switches them on."""
    freeze: tuple[Part, ...] = ()
    """Parts that keep their weights."""
    gradient_checkpointing: bool = False
    """Keep only the input of each layer for the backward pass and compute the rest again: about a third more work, the same gradient."""
    attention: Attention = "sdpa"
    """The attention kernel; flash_attention_2 needs the flash-attn package, a GPU, and bfloat16."""

    def __post_init__(self) -> None:
        _known("model.freeze", self.freeze)
        one_of("model", Attention, attention=self.attention)
        if set(self.freeze) == set(PARTS):
            raise ValueError(f"model.freeze=[{','.join(self.freeze)}] leaves nothing to train. Leave one part out.")
        if self.lora and (both := [part for part in self.lora.targets if part in self.freeze]):
            raise ValueError(
                f"model.freeze and model.lora.targets both name {both[0]}. Adapters freeze what they adapt; drop one of the two."
            )


def adapt(model: PreTrainedModel, adaptation: Adaptation, parts: Names) -> PreTrainedModel:
    """The same model, ready for training: `requires_grad` says what is trained, and layers carry their adapters.

    With adapters, `save_pretrained` of the model writes peft's format and nothing else.
    """
    if adaptation.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()  # Only the reentrant kind needs it; a frozen vision tower would be trained through for nothing.
    for name, parameter in model.named_parameters():
        if part_of(name, parts) in adaptation.freeze:
            parameter.requires_grad_(False)
    if adaptation.lora:
        _add_adapters(model, adaptation.lora, parts)
    return model


def part_of(name: str, parts: Names) -> Part:
    """The part that a parameter or module belongs to.

    >>> part_of("model.visual.merger.norm.weight", {"vision": ["model.visual"], "projector": ["model.visual.merger"]})
    'projector'

    Raises ValueError for a name that lies in no part.
    """
    found = [(len(prefix), part) for part, prefixes in parts.items() for prefix in prefixes if f"{name}.".startswith(f"{prefix}.")]
    if not found:
        raise ValueError(f"{name} belongs to none of the model's parts; the family must name its module.")
    return max(found)[1]


def linear_layers(model: PreTrainedModel, targets: Sequence[Part], parts: Names) -> list[str]:
    """Names of the linear layers of some parts, without the head: what adapters go on. Experts of a mixture are no such layers."""
    from torch import nn

    head = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    return [name for name in linear if part_of(name, parts) in targets]


def is_adapter(directory: str | Path) -> bool:
    """Whether a directory holds adapters in peft's format, not a whole model."""
    return (Path(directory).expanduser() / ADAPTER).is_file()


def merged(base: PreTrainedModel, directory: str) -> PreTrainedModel:
    """`base` with the adapters of a directory added into its weights, in the type of those weights (float32: nothing is rounded away)."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")  # They would begin as if nothing had been learned.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks transformers by the old name.
        model: Any = PeftModel.from_pretrained(base, directory).merge_and_unload()
    model.name_or_path = directory  # What further adapters are trained on.
    return model.requires_grad_(True)  # The base was frozen under its adapters.


def restore(model: PreTrainedModel, directory: Path) -> None:
    """Put back into a model of the same shapes what its `save_pretrained` wrote: all weights, or its adapters.

    Raises ValueError when one is missing.
    """
    import torch

    if is_adapter(directory):
        from peft import load_peft_weights, set_peft_model_state_dict

        saved = load_peft_weights(str(directory), device="cpu")
        found: Any = set_peft_model_state_dict(model, saved, adapter_name=model.active_adapters()[0])
        _refuse_missing(name for name in found.missing_keys if "lora_" in name)
    else:
        weights = whole(type(model), directory, dtype=torch.float32, use_safetensors=True)
        model.load_state_dict(weights.state_dict())


def whole(loader: Any, directory: str | Path, **options: Any) -> PreTrainedModel:
    """`loader.from_pretrained`. Raises ValueError when a tensor is missing: it would begin at random, with a warning at most."""
    model, found = loader.from_pretrained(directory, output_loading_info=True, **options)
    _refuse_missing(found["missing_keys"])
    return model


def _refuse_missing(names: Iterable[str]) -> None:
    if missing := sorted(names):
        raise ValueError(f"it lacks {missing[0]}" + (f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""))


def _add_adapters(model: PreTrainedModel, lora: Lora, parts: Names) -> None:
    from peft import LoraConfig

    model.add_adapter(
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=_pattern(linear_layers(model, lora.targets, parts)),
        )
    )


def _pattern(names: Sequence[str]) -> str:
    """A regular expression for exactly these modules of every layer: short enough to read in an adapter's configuration.

    >>> _pattern(["a.0.q", "a.1.q", "a.0.k"])
    'a\\\\.\\\\d+\\\\.k|a\\\\.\\\\d+\\\\.q'
    """
    return "|".join(sorted({re.sub(r"\\\.\d+(?=\\\.|$)", lambda _: r"\.\d+", re.escape(name)) for name in names}))


def _known(where: str, parts: Sequence[str]) -> None:
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"{where} names {part!r}; the parts are {', '.join(PARTS)}.")
