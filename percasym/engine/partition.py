"""Optimizer states between any two numbers of ranks: which part of which parameter each flat tensor holds, and how to cut them anew.

Every checkpoint records the layout of its tensors, so nothing is derived from the rules of a ZeRO stage or of a DeepSpeed release when it
is read. Elements are copied, never computed: the moments of a parameter are the same bits before and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Piece(NamedTuple):
    """A run of consecutive elements of one parameter within a flat tensor."""

    name: str
    """The parameter."""
    start: int
    """First element, of the flattened parameter."""
    numel: int
    offset: int
    """Where it lies in the flat tensor."""


Layout = Sequence[Sequence[Piece]]
"""The pieces of each tensor of an optimizer, in the optimizer's order. What no piece covers is padding."""


def whole(module: nn.Module, optimizer: Optimizer) -> Layout:
    """The layout of an optimizer that has one tensor for each parameter of `module`."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [[Piece(names[id(each)], 0, each.numel(), 0)] for group in optimizer.param_groups for each in group["params"]]


def of_flat_groups(groups: Sequence[Sequence[tuple[str, int, int]]], sizes: Sequence[int], rank: int) -> Layout:
    """ZeRO stages 1 and 2: the parameters of a group lie one after another, and each rank has an equal stretch of them all.

    `groups` are (name, numel, offset in the whole group) of the parameters, `sizes` the elements of one rank's stretch.

    >>> of_flat_groups([[("a", 3, 0), ("b", 4, 3)]], sizes=[4], rank=1)
    [[Piece(name='b', start=1, numel=3, offset=0)]]
    """
    layout = []
    for group, size in zip(groups, sizes, strict=True):
        low, high, pieces = rank * size, (rank + 1) * size, []
        for name, numel, offset in group:
            first, last = max(low, offset), min(high, offset + numel)
            if first < last:
                pieces.append(Piece(name, first - offset, last - first, first - low))
        layout.append(pieces)
    return layout


def of_split_parameters(groups: Sequence[Sequence[tuple[str, int, int]]], rank: int) -> Layout:
    """ZeRO stage 3: each rank has an equal stretch of every parameter, and those of a group lie one after another.

    `groups` are (name, numel, elements of one rank's stretch) of the parameters.

    >>> of_split_parameters([[("a", 3, 2), ("b", 1, 1), ("c", 4, 2)]], rank=1)
    [[Piece(name='a', start=2, numel=1, offset=0), Piece(name='c', start=2, numel=2, offset=3)]]
    """
    layout = []
    for group in groups:
        offset, pieces = 0, []
        for name, numel, stretch in group:
            start = rank * stretch
            if start < numel:
                pieces.append(Piece(name, start, min(stretch, numel - start), offset))
            offset += stretch
        layout.append(pieces)
    return layout


def repartitioned(
    shares: Sequence[tuple[Layout, Mapping[str, Any]]], layout: Layout, updated: Sequence[Tensor], empty: Mapping[str, Any]
) -> dict[str, Any]:
    """The `state_dict` of an optimizer with this layout, from those of all ranks that wrote one.

    `shares` are layout and `state_dict` of each of them, `updated` the tensors of the new optimizer, `empty` its own `state_dict`, which
    gives the options of the parameter groups. A parameter that had no state (it never had a gradient) gets zeros. The result lies on the
    device of `updated`: the moments of all ranks together are two models, for which a host need not have room.

    Raises ValueError when the shares do not hold every element.
    """
    held: dict[str, list[tuple[Piece, Mapping[str, Any]]]] = {}
    for pieces, state in ((pieces, state["state"].get(i, {})) for written, state in shares for i, pieces in enumerate(written)):
        for piece in pieces:
            held.setdefault(piece[0], []).append((Piece(*piece), state))
    scalars = {name: value for _, state in shares for values in state["state"].values() for name, value in values.items()}
    names = [name for name, value in scalars.items() if isinstance(value, Tensor) and value.ndim]  # The moments.
    states = {}
    for i, (pieces, tensor) in enumerate(zip(layout, updated, strict=True)):
        sources = [source for piece in pieces for source in _sources(piece, held.get(piece.name, []))]
        if not scalars or (pieces and not any(state for _, _, state in sources)):
            continue  # None of its parameters has been updated yet.
        flat = {name: torch.zeros(tensor.numel(), dtype=scalars[name].dtype, device=tensor.device) for name in names}
        for piece, part, state in sources:
            for name in names if state else ():
                start = part.offset + piece.start - part.start
                flat[name][piece.offset : piece.offset + piece.numel] = state[name].flatten()[start : start + piece.numel]
        shared = next((state for _, _, state in sources if state), scalars)
        states[i] = {name: flat[name].view(tensor.shape) if name in flat else value for name, value in shared.items()}
    return {"state": states, "param_groups": empty["param_groups"]}


def _sources(wanted: Piece, held: Sequence[tuple[Piece, Mapping[str, Any]]]) -> Iterator[tuple[Piece, Piece, Mapping[str, Any]]]:
    """The parts of a wanted piece, each with the piece that holds it and the state of that tensor. Raises ValueError for a gap."""
    at, stop = wanted.start, wanted.start + wanted.numel
    for part, state in sorted(held, key=lambda each: each[0].start):
        end = min(stop, part.start + part.numel)
        if part.start <= at < end:
            yield Piece(wanted.name, at, end - at, wanted.offset + at - wanted.start), part, state
            at = end
    if at < stop:
        raise ValueError(f"it lacks the optimizer state of {wanted.name} from element {at} on")
