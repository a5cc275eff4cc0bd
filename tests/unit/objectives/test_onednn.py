"""Linear layers through oneDNN: the same numbers, forward and backward, and the library's own layer wherever oneDNN cannot serve."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from percasym.objectives import onednn
from percasym.objectives.onednn import MIN_ROWS, OneDnnLinear, product, round_factors, unrounded, with_onednn
from tests.processor import needs_bfloat16


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor on which oneDNN is the faster one."""
    monkeypatch.setattr(onednn, "FASTER", onednn.AVAILABLE)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The inputs that reached oneDNN."""
    seen: list[torch.Size] = []
    linear = onednn.linear

    def counted(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(states.shape)
        return linear(states, weight, bias)

    monkeypatch.setattr(onednn, "linear", counted)
    return seen


def pair(bias: bool) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(24, 40, bias=bias)
    fast = deepcopy(plain)
    fast.__class__ = OneDnnLinear
    return plain, fast


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(MIN_ROWS, 24), (5, 17, 24), (2, 3, 11, 24)])
def test_values_and_gradients_are_those_of_the_plain_layer(shape: tuple[int, ...], bias: bool, calls: list[torch.Size]) -> None:
    plain, fast = pair(bias)
    inputs = torch.randn(shape)
    results = []
    for layer in (plain, fast):
        states = inputs.clone().requires_grad_()
        out = layer(states)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        results.append([out.detach(), states.grad, *(parameter.grad for parameter in layer.parameters())])
    for one, other in zip(*results, strict=True):
        assert_close(other, one, rtol=1e-5, atol=1e-5)
    assert len(calls) == 3  # Forward, gradient of the states, gradient of the weight.


def test_a_transposed_input_has_the_same_gradient() -> None:
    plain, fast = pair(True)
    inputs = torch.randn(24, 2, 50).permute(2, 1, 0)
    grads = []
    for layer in (plain, fast):
        states = inputs.clone(memory_format=torch.preserve_format).requires_grad_()
        layer(states).transpose(0, 1).square().sum().backward()
        grads.append(states.grad)
    assert_close(*grads, rtol=1e-5, atol=1e-5)


def test_few_rows_half_precision_and_autocast_take_the_plain_layer(calls: list[torch.Size]) -> None:
    plain, fast = pair(True)
    few = torch.randn(MIN_ROWS - 1, 24)
    assert torch.equal(fast(few), plain(few))
    assert fast.bfloat16()(torch.randn(64, 24, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fast.float()(torch.randn(64, 24)).dtype == torch.bfloat16
    assert not calls


def test_where_the_own_product_is_faster_a_layer_takes_it(calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "FASTER", False)
    plain, fast = pair(True)
    rows = torch.randn(2 * MIN_ROWS, 24)
    assert torch.equal(fast(rows), plain(rows))
    assert torch.equal(product(rows, plain.weight.t()), rows @ plain.weight.t())
    assert not calls


@pytest.mark.parametrize(("vendor", "intel"), [("GenuineIntel", True), ("AuthenticAMD", False)])
def test_a_processor_is_known_by_its_name(vendor: str, intel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "CPUINFO", tmp_path / "cpuinfo")
    onednn.CPUINFO.write_text(f"processor : 0\nvendor_id : {vendor}\n")
    assert onednn._is_intel() is intel


@needs_bfloat16
@pytest.mark.parametrize("bias", [True, False])
def test_rounded_factors_give_the_products_of_rounded_numbers_and_a_float32_layer_within_the_context(bias: bool) -> None:
    plain, fast = pair(bias)
    model: Any = nn.Sequential(fast)
    round_factors(model, torch.bfloat16)
    inputs, upstream = torch.randn(3, 50, 24), torch.randn(3, 50, 40)
    states = inputs.clone().requires_grad_()
    out = model(states)
    out.backward(upstream)

    def short(values: torch.Tensor) -> torch.Tensor:
        return values.detach().bfloat16().double()

    rows, above = short(inputs).flatten(0, 1), short(upstream).flatten(0, 1)
    expected = rows @ short(plain.weight).T + (0 if plain.bias is None else plain.bias.double())
    close = {"rtol": 2**-8, "atol": 2**-6}  # bfloat16 has eight bits, and a result is rounded once.
    assert_close(out.double().flatten(0, 1), expected, **close)
    assert_close(states.grad.double().flatten(0, 1), above @ short(plain.weight), **close)
    assert_close(fast.weight.grad.double(), above.T @ rows, **close)
    assert {out.dtype, states.grad.dtype, *(parameter.grad.dtype for parameter in fast.parameters())} == {torch.float32}
    if bias:
        assert_close(fast.bias.grad, upstream.flatten(0, 1).sum(0))
    with torch.no_grad():
        assert torch.equal(model(inputs), out)
        with unrounded(model):
            assert_close(model(inputs), plain(inputs), rtol=1e-5, atol=1e-5)
        assert torch.equal(model(inputs), out)


def test_without_the_operator_nothing_changes(monkeypatch: pytest.MonkeyPatch, calls: list[torch.Size]) -> None:
    for name in ("AVAILABLE", "FASTER"):
        monkeypatch.setattr(onednn, name, False)
    left, right = torch.randn(64, 24), torch.randn(24, 8)
    assert torch.equal(product(left, right), left @ right)
    assert type(with_onednn(nn.Sequential(nn.Linear(2, 2)))[0]) is nn.Linear  # type: ignore[arg-type, index]
    assert not calls


def test_a_frozen_layer_computes_no_gradient_of_its_weight(calls: list[torch.Size]) -> None:
    _, fast = pair(True)
    fast.requires_grad_(False)
    states = torch.randn(64, 24, requires_grad=True)
    fast(states).sum().backward()
    assert len(calls) == 2
    assert fast.weight.grad is None


def test_layers_of_other_classes_stay_as_they_are() -> None:
    class Own(nn.Linear):
        pass

    model = with_onednn(nn.Sequential(nn.Linear(2, 2), Own(2, 2)))  # type: ignore[arg-type]
    assert [type(module) for module in model] == [OneDnnLinear, Own]  # type: ignore[attr-defined]
    assert set(model.state_dict()) == {"0.weight", "0.bias", "1.weight", "1.bias"}
