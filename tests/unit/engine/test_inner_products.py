"""Inner products of gradients: any chunking agrees, and no length loses precision."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from percasym.engine import inner_products
from percasym.engine.inner_products import gramian, squared_norm

BEYOND_INT = 2**31 + 16
"""More elements than fit a 32-bit integer; also the number of float32 weights of a 32B model on one of 16 ranks."""


@pytest.fixture
def chunked(monkeypatch):
    """Set the number of elements of a chunk."""
    return lambda numel: monkeypatch.setitem(inner_products.CHUNK_NUMEL, "cpu", numel)


def test_products_are_those_of_the_two_vectors():
    # <p, p> = 1 + 4, <r, r> = 9 + 16 + 4, <p, r> = 3 + 8; the last part is missing in p.
    perception, reasoning = [torch.tensor([[1.0], [2.0]]), None], [torch.tensor([[3.0], [4.0]]), torch.tensor([2.0])]
    assert gramian(perception, reasoning).tolist() == [5.0, 29.0, 11.0]
    assert gramian(reasoning, perception).tolist() == [29.0, 5.0, 11.0]
    assert squared_norm(reasoning).item() == 29.0


def test_no_part_has_norm_zero():
    assert squared_norm([None]).item() == 0.0
    assert gramian([None], [None]).tolist() == gramian([], []).tolist() == [0.0] * 3


@given(sizes=st.lists(st.integers(0, 70), max_size=4), numel=st.integers(1, 80), seed=st.integers(0, 9))
def test_any_chunking_agrees(sizes, numel, seed):
    generator = torch.Generator().manual_seed(seed)
    one, other = ([torch.randn(size, generator=generator) * 10 ** (3 * i) for i, size in enumerate(sizes)] for _ in range(2))
    whole, norm = gramian(one, other), squared_norm(one)
    before = inner_products.CHUNK_NUMEL["cpu"]
    try:
        inner_products.CHUNK_NUMEL["cpu"] = numel
        torch.testing.assert_close(gramian(one, other), whole, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(squared_norm(one), norm, rtol=1e-12, atol=1e-12)
    finally:
        inner_products.CHUNK_NUMEL["cpu"] = before


@pytest.mark.parametrize("numel", [2**12, 2**18, 2**30])
def test_a_long_flat_part_keeps_its_norm(numel, chunked):
    """On one CPU thread float32 accumulation loses digits here: that of 3e7 equal elements misses the true sum by 1e-4 and more."""
    chunked(numel)
    part = torch.full((30_000_000,), 0.1)
    exact = len(part) * float(part[0].double()) ** 2
    assert gramian([part], [part]).tolist() == pytest.approx([exact] * 3, rel=1e-9)
    assert squared_norm([part]).item() == pytest.approx(exact, rel=1e-9)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of resident memory")
def test_a_long_part_takes_the_memory_of_one_chunk():
    """A new float64 tensor for each chunk left 1.6 GB of holes in the heap here, and 17 GB for 2^31 elements."""
    part = torch.ones(1).expand(200_000_000)
    before = resident_bytes()
    assert gramian([part], [part]).tolist() == [2e8] * 3
    assert resident_bytes() - before < 100e6


@pytest.mark.slow
def test_more_elements_than_an_integer_counts():
    """`torch.dot` gives 16,777,216 here, where float32 stops counting. All elements share one address, so the part takes no memory
    (8.6 GB otherwise); each chunk is copied to float64 as of any other part."""
    part = torch.ones(1).expand(BEYOND_INT)
    assert gramian([part], [part]).tolist() == [float(BEYOND_INT)] * 3
    assert squared_norm([part]).item() == float(BEYOND_INT)
