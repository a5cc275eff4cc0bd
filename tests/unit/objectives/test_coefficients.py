"""One coefficient per token, counted over the whole step."""

from __future__ import annotations

import torch
from torch import tensor
from torch.testing import assert_close

from percasym.objectives.coefficients import coefficients, span_counts, span_sums
from percasym.types import UNSUPERVISED, Span

P, R, NONE = Span.perception, Span.reasoning, UNSUPERVISED


def test_coefficients_average_each_span_over_its_own_tokens():
    labels = tensor([[NONE, P, P, P, R]])  # 3 perception tokens, 1 reasoning token
    # weights 0.6 and 0.4: each P gets 0.6/3, the R gets 0.4/1.
    assert_close(coefficients(labels, {P: 0.6, R: 0.4}, (3, 1)), tensor([[0.0, 0.2, 0.2, 0.2, 0.4]]))


def test_counts_are_those_of_the_step_and_not_of_the_micro_batch():
    first, second = tensor([[NONE, P, R, R]]), tensor([[NONE, P, P, P]])
    counts = tuple(span_counts([first, second]).tolist())
    assert counts == (4, 2)
    # weight 1 on each span: the two micro-batches together carry 1 per span, whatever each one holds.
    both = torch.cat([coefficients(part, {P: 1.0, R: 1.0}, counts) for part in (first, second)])
    assert_close(both, tensor([[0, 0.25, 0.5, 0.5], [0, 0.25, 0.25, 0.25]]))


def test_a_span_without_a_weight_or_without_tokens_carries_nothing():
    labels = tensor([[NONE, R, R]])
    assert coefficients(labels, {P: 1.0}, (0, 2)).count_nonzero() == 0
    assert_close(coefficients(labels, {P: 0.5, R: 0.5}, (0, 2)), tensor([[0.0, 0.25, 0.25]]))


def test_span_sums_add_the_losses_of_each_span():
    nll = tensor([[0.0, 1.0, 2.0, 4.0]], requires_grad=True)
    sums = span_sums(nll, tensor([[NONE, P, R, R]]))
    assert sums.tolist() == [1.0, 6.0]
    assert not sums.requires_grad
