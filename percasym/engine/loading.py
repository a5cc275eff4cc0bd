"""The weights of a model on many ranks: the first rank reads every file once and hands over one tensor at a time.

The other ranks build the same modules on the meta device, without memory. Where each rank then keeps a part of every tensor (ZeRO-3), the
host's memory holds one model in all, whatever the number of ranks, and no device ever holds a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from percasym.config.schema import ConfigError
from percasym.engine.ranks import Ranks
from percasym.models.adapt import Adaptation, adapt
from percasym.models.checkpoint import skeleton

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from percasym.models.base import Family

T = TypeVar("T")


def loaded(family: Family, ranks: Ranks) -> PreTrainedModel:
    """The model of a family: with its weights on rank 0, on the meta device on all others.

    Raises ConfigError, on every rank, when the checkpoint cannot be read.
    """
    whole = on_first_rank(ranks, family.load)
    described = ranks.broadcast(lambda: None if whole is None else (type(whole), whole.config, str(whole.name_or_path)))
    if whole is not None:
        return whole
    assert described is not None, "rank 0 has a model"
    assert isinstance(family, Adaptation), "a family has the options of Adaptation"
    return adapt(skeleton(*described), family, family.parts)


def on_first_rank(ranks: Ranks, compute: Callable[[], T]) -> T | None:
    """The result of `compute` on rank 0, None on all others, which wait. Raises ConfigError on every rank where it raises ValueError."""
    result, refusal = None, None
    if ranks.rank == 0:
        try:
            result = compute()
        except ValueError as error:
            refusal = error
    if reason := ranks.broadcast(lambda: None if refusal is None else str(refusal)):
        raise ConfigError(reason) from refusal
    return result


def handed_over(model: PreTrainedModel, device: torch.device, ranks: Ranks) -> PreTrainedModel:
    """The same model with all of its weights on `device`, on every rank those of rank 0."""
    for parameter in model.parameters():
        give_room(parameter, device)
        ranks.broadcast_in_place(parameter.data)
    hand_over_buffers(model, device, ranks)
    return model


def hand_over_buffers(model: nn.Module, device: torch.device, ranks: Ranks) -> None:
    """Buffers (rotary frequencies, for the most part) on `device`, on every rank those of rank 0."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                here = torch.empty_like(buffer, device=device) if buffer.is_meta else buffer.to(device)
                ranks.broadcast_in_place(here)
                module._buffers[name] = here


def give_room(parameter: nn.Parameter, device: torch.device) -> None:
    """Move a parameter to `device`; one on the meta device becomes uninitialised memory there, and stays the same object for its owners."""
    if parameter.is_meta:
        room = torch.empty_like(parameter, device=device)
        torch.utils.swap_tensors(parameter, nn.Parameter(room, requires_grad=parameter.requires_grad))
    else:
        parameter.data = parameter.data.to(device)


@torch.no_grad()
def assign_whole(ranks: Ranks, parameter: nn.Parameter, value: Tensor | None) -> None:
    """Give a parameter that every rank holds in full the value that rank 0 passes."""
    if value is not None:
        parameter.copy_(value)
    ranks.broadcast_in_place(parameter.data)


@contextmanager
def whole_on_host(
    model: PreTrainedModel, collect: Callable[[nn.Parameter], Tensor], *, first: bool, dtype: torch.dtype = torch.float32
) -> Iterator[PreTrainedModel]:
    """Within the context the parameters of the model are whole, in `dtype` and in the host's memory of rank 0 (`first`), for saving only.

    `collect` completes one parameter on every rank; all ranks call it in the same order, and rank 0 keeps the result.
    """
    kept: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for parameter in model.parameters():
            value = collect(parameter)
            if first:
                kept.append((parameter, parameter.data))
                parameter.data = value.detach().to("cpu", dtype, copy=True)
        yield model
    finally:
        for parameter, part in kept:
            parameter.data = part
