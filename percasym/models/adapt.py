"""Choose what is trained: LoRA adapters, frozen parts, and gradient checkpointing.

A family maps its modules to three parts; everything here depends on that mapping only, so it applies to every family:

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
from percasym.models.untrusted import check_checkpoint

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Part = Literal["language", "projector", "vision"]
"""The language model with its embeddings and head; the projector of image features into it; the vision tower."""
PARTS: tuple[Part, ...] = get_args(Part)
PartModules = Mapping[Part, Sequence[str]]
"""Dotted names of the modules of each part; the longest prefix of a parameter's name decides its part."""
Attention = Literal["sdpa", "eager", "flash_attention_2"]

ADAPTER = "adapter_config.json"
"""The file that distinguishes an adapter directory (peft's format) from a whole checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank adapters on every linear layer of the chosen parts, except the head (`model.lora.*`).

    A layer's weight W becomes W + (alpha / rank) B A with A [rank, in] and B [out, rank], B initially zero; all other weights are frozen.

    Source: Hu et al. 2021, "LoRA" (arXiv:2106.09685), through peft.
    """

    rank: int = 16
    """Rank of each adapter."""
    alpha: int = 32
    """Numerator of the adapters' scale; usually twice the rank."""
    dropout: float = 0.0
    """Dropout on the adapters' inputs. Above 0, the two span gradients of one step are computed under different masks."""
    targets: tuple[Part, ...] = ("language",)
    """Parts that get adapters."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"model.lora.rank must be at least 1, got {self.rank}.")
        if self.alpha < 1:
            raise ValueError(f"model.lora.alpha must be at least 1, got {self.alpha}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.lora.dropout must lie in [0, 1), got {self.dropout}.")
        _check_parts("model.lora.targets", self.targets)
        if not self.targets:
            raise ValueError(f"model.lora.targets names no part to adapt; choose among {', '.join(PARTS)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """The options that all families share (`model.*`)."""

    lora: Lora | None = None
    """Train adapters only; setting any field, such as `model.lora.rank=16`, enables them."""
    freeze: tuple[Part, ...] = ()
    """Frozen parts."""
    gradient_checkpointing: bool = False
    """Keep only the input of each layer for the backward pass and recompute the rest: a third more FLOPs, the same gradient."""
    attention: Attention = "sdpa"
    """The attention kernel; flash_attention_2 needs the flash-attn package, a GPU, and bfloat16."""

    def __post_init__(self) -> None:
        _check_parts("model.freeze", self.freeze)
        one_of("model", Attention, attention=self.attention)
        if set(self.freeze) == set(PARTS):
            raise ValueError(f"model.freeze=[{','.join(self.freeze)}] leaves nothing to train. Leave one part out.")
        if self.lora and (both := [part for part in self.lora.targets if part in self.freeze]):
            raise ValueError(
                f"model.freeze and model.lora.targets both name {both[0]}. Adapters freeze what they adapt; drop one of the two."
            )


def adapt(model: PreTrainedModel, adaptation: Adaptation, parts: PartModules) -> PreTrainedModel:
    """Prepare a model for training in place: set `requires_grad`, add adapters, enable checkpointing. Returns the model.

    With adapters, `save_pretrained` of the model writes the adapters only, in peft's format.
    """
    if adaptation.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()  # Only reentrant checkpointing needs it; a frozen vision tower would get a backward pass.
    for name, parameter in model.named_parameters():
        if part_of(name, parts) in adaptation.freeze:
            parameter.requires_grad_(False)
    if adaptation.lora:
        _add_adapters(model, adaptation.lora, parts)
    return model


def part_of(name: str, parts: PartModules) -> Part:
    """The part that a parameter or module belongs to.

    >>> part_of("model.visual.merger.norm.weight", {"vision": ["model.visual"], "projector": ["model.visual.merger"]})
    'projector'

    Raises ValueError for a name that belongs to no part.
    """
    found = [(len(prefix), part) for part, prefixes in parts.items() for prefix in prefixes if f"{name}.".startswith(f"{prefix}.")]
    if not found:
        raise ValueError(f"{name} belongs to none of the model's parts; the family must name its module.")
    return max(found)[1]


def names_of(model: PreTrainedModel, part: Part, parts: PartModules) -> list[str]:
    """Names of the parameters of one part."""
    return [name for name, _ in model.named_parameters() if part_of(name, parts) == part]


def linear_layers(model: PreTrainedModel, targets: Sequence[Part], parts: PartModules) -> list[str]:
    """Names of the linear layers of some parts that get adapters: neither the head nor experts of a mixture."""
    from torch import nn

    head = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    return [name for name in linear if part_of(name, parts) in targets]


def is_adapter(directory: str | Path) -> bool:
    """Whether a directory holds adapters in peft's format rather than a whole model."""
    return (Path(directory).expanduser() / ADAPTER).is_file()


def merge_adapters(base: PreTrainedModel, directory: str) -> PreTrainedModel:
    """Merge the adapters of a directory into the weights of `base`, in the type of those weights (float32, so without rounding error)."""
    from peft import PeftModel

    if not (Path(directory) / "adapter_model.safetensors").is_file():  # peft would ask the hub.
        raise ValueError("it has no adapter_model.safetensors")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")  # They would be initialised from scratch.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft uses the deprecated attribute name.
        model: Any = PeftModel.from_pretrained(base, directory).merge_and_unload()
    model.name_or_path = directory  # The base recorded in further adapters.
    return model.requires_grad_(True)  # peft froze the base.


def saved_tensors(model: PreTrainedModel, directory: Path) -> dict[str, Tensor]:
    """What the `save_pretrained` of a model of the same shapes wrote, in float32 by the names of its parameters: all weights, or its
    adapters.

    Raises ValueError when a tensor is missing or has another shape.
    """
    import torch

    check_checkpoint(directory)
    if is_adapter(directory):
        from peft import load_peft_weights

        active = model.active_adapters()[0]
        saved = {_of_adapter(name, active): value for name, value in load_peft_weights(str(directory), device="cpu").items()}
        wanted = {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}
    else:
        saved = dict(load_complete(type(model), directory, dtype=torch.float32, use_safetensors=True).named_parameters())
        wanted = dict(model.named_parameters())
    _refuse_missing(wanted.keys() - saved.keys())
    for name, parameter in wanted.items():
        shape = getattr(parameter, "ds_shape", parameter.shape)  # Under ZeRO-3 a parameter is empty.
        if saved[name].shape != shape:
            raise ValueError(f"{name} has the shape {[*saved[name].shape]} in place of {[*shape]}")
    return {name: saved[name].detach() for name in wanted}


def _of_adapter(name: str, active: str) -> str:
    """The parameter of a model with adapters that a tensor in peft's file is.

    >>> _of_adapter("base_model.model.lm.q_proj.lora_A.weight", "default")
    'lm.q_proj.lora_A.default.weight'
    """
    return re.sub(r"\.(lora_[AB])\.weight$", rf".\1.{active}.weight", name.removeprefix("base_model.model."))


def load_complete(loader: Any, directory: str | Path, **options: Any) -> PreTrainedModel:
    """`loader.from_pretrained`, but raises ValueError when a tensor is missing; transformers initialises it at random with a warning."""
    model, found = loader.from_pretrained(directory, output_loading_info=True, **options)
    _refuse_missing(found["missing_keys"])
    return model


def _refuse_missing(names: Iterable[str]) -> None:
    if missing := sorted(names):
        raise ValueError(f"it lacks {missing[0]}" + (f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""))


def _add_adapters(model: PreTrainedModel, lora: Lora, parts: PartModules) -> None:
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
    """A regular expression that matches exactly these modules; layer numbers become \\d+ so that adapter_config.json stays readable.

    >>> _pattern(["a.0.q", "a.1.q", "a.0.k"])
    'a\\\\.\\\\d+\\\\.k|a\\\\.\\\\d+\\\\.q'
    """
    return "|".join(sorted({re.sub(r"\\\.\d+(?=\\\.|$)", lambda _: r"\.\d+", re.escape(name)) for name in names}))


def _check_parts(where: str, parts: Sequence[str]) -> None:
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"{where} names {part!r}; the parts are {', '.join(PARTS)}.")
