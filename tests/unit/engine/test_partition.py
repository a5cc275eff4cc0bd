"""Optimizer states cut anew: no element is lost, doubled or changed between any two layouts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from percasym.engine.partition import Layout, Piece, of_flat_groups, of_split_parameters, repartitioned

SIZES = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=3)
"""Elements of the parameters of some groups."""
CUTS = st.tuples(st.sampled_from(["whole", "flat", "split"]), st.integers(1, 5))


def layouts(sizes: list[list[int]], kind: str, num_ranks: int) -> list[tuple[Layout, list[int]]]:
    """Layout and tensor sizes of each rank: torch's, or as ZeRO 1 and 2 ("flat") or ZeRO 3 ("split") deal parameters out."""
    named = [[(f"{i}.{j}", numel) for j, numel in enumerate(group)] for i, group in enumerate(sizes)]
    if kind == "whole":
        return [([[Piece(name, 0, numel, 0)] for group in named for name, numel in group], [numel for group in sizes for numel in group])]
    if kind == "flat":
        lengths = [-(-sum(group) // (2 * num_ranks)) * 2 for group in sizes]
        placed = [[(name, numel, sum(n for _, n in group[:j])) for j, (name, numel) in enumerate(group)] for group in named]
        return [(of_flat_groups(placed, lengths, rank), lengths) for rank in range(num_ranks)]
    stretches = [[(name, numel, -(-numel // num_ranks)) for name, numel in group] for group in named]
    return [(of_split_parameters(stretches, rank), [sum(s for *_, s in group) for group in stretches]) for rank in range(num_ranks)]


def value(name: str, element: int) -> float:
    """A number of its own for every element of every parameter; exact in float32."""
    group, parameter = map(int, name.split("."))
    return 1.0 + element + 100 * parameter + 1000 * group


def filled(layout: Layout, sizes: list[int]) -> dict:
    """The state of an optimizer in which every element has its own value; padding is -1, which must never be read."""
    states = {}
    for i, (pieces, numel) in enumerate(zip(layout, sizes, strict=True)):
        flat = torch.full((numel,), -1.0)
        for name, start, length, offset in pieces:
            flat[offset : offset + length] = torch.tensor([value(name, start + k) for k in range(length)])
        states[i] = {"step": torch.tensor(7.0), "exp_avg": flat, "exp_avg_sq": -flat}
    return {"state": states, "param_groups": [{"lr": 1.0}]}


@given(sizes=SIZES, before=CUTS, after=CUTS)
def test_any_partition_becomes_any_other(sizes, before, after) -> None:
    shares = [(layout, filled(layout, lengths)) for layout, lengths in layouts(sizes, *before)]
    for layout, lengths in layouts(sizes, *after):
        made = repartitioned(shares, layout, [torch.empty(length) for length in lengths], {"param_groups": ["own"]})
        expected = filled(layout, lengths)
        assert made["param_groups"] == ["own"]
        assert made["state"].keys() == expected["state"].keys()
        for i, state in made["state"].items():
            assert state["step"] == 7
            covered = [at for piece in layout[i] for at in range(piece.offset, piece.offset + piece.numel)]
            assert torch.equal(state["exp_avg"][covered], expected["state"][i]["exp_avg"][covered])
            assert torch.equal(state["exp_avg_sq"][covered], -state["exp_avg"][covered])
            assert state["exp_avg"].sum() == state["exp_avg"][covered].sum(), "padding is zero"


def test_a_parameter_keeps_its_shape_and_one_that_was_never_updated_has_zeros() -> None:
    flat = [[Piece("a", 0, 6, 0), Piece("b", 0, 2, 6)]]
    ours = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.arange(6.0).view(2, 3)}}, "param_groups": []}
    written: Layout = [[Piece("a", 0, 6, 0)], [Piece("b", 0, 2, 0)]]  # `b` has no state: a frozen tower's neighbour, say.
    made = repartitioned([(written, ours)], flat, [torch.empty(10)], {"param_groups": []})
    assert made["state"][0]["exp_avg"].tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0, 0]
    back = repartitioned([(flat, made)], written, [torch.empty(2, 3), torch.empty(2)], {"param_groups": []})
    assert torch.equal(back["state"][0]["exp_avg"], ours["state"][0]["exp_avg"])
    assert repartitioned([(written, {"state": {}})], flat, [torch.empty(10)], {"param_groups": []})["state"] == {}


def test_a_missing_stretch_is_an_error() -> None:
    shares = [([[Piece("a", 0, 2, 0)]], filled([[Piece("0.0", 0, 2, 0)]], [2])), ([[Piece("a", 3, 3, 0)]], {"state": {}})]
    with pytest.raises(ValueError, match="lacks the optimizer state of a from element 2 on"):
        repartitioned(shares, [[Piece("a", 0, 6, 0)]], [torch.empty(6)], {"param_groups": []})


def test_new_states_are_made_where_their_tensors_are() -> None:
    """Made on the host, the moments of all ranks of a GPU machine would take two models of its memory at once."""
    layout: Layout = [[Piece("a", 0, 4, 0)]]
    ours = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(4), "exp_avg_sq": torch.ones(4)}}, "param_groups": []}
    made = repartitioned([(layout, ours)], layout, [torch.empty(4, device="meta")], {"param_groups": []})
    assert {name: value.device.type for name, value in made["state"][0].items()} == {
        "step": "cpu",
        "exp_avg": "meta",
        "exp_avg_sq": "meta",
    }
