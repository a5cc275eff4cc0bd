"""The loss of a loop that has logits: worked by hand, beside transformers' own, and under accumulation."""

from __future__ import annotations

import math

import pytest
import torch

from percasym import span_loss

LABELS = torch.tensor([[-100, 3, 1, 2], [-100, 0, -100, -100]])
SPANS = torch.tensor([[-1, 0, 1, 1], [-1, 0, -1, -1]])


def logits(*costs: tuple[float, ...]) -> torch.Tensor:
    """[2, 4, 4] logits under which the tokens of LABELS cost these nats: a token of probability q beside three of (1 - q) / 3."""
    out = torch.zeros(2, 4, 4)
    for row, own in enumerate(costs):
        for at, nats in enumerate(own):
            q = math.exp(-nats)
            out[row, at] = math.log((1 - q) / 3)
            out[row, at, max(0, int(LABELS[row, at + 1]))] = math.log(q)
    return out


def test_each_span_is_averaged_over_its_own_tokens() -> None:
    # Perception: 1 and 3 nats, mean 2. Reasoning: 0.5 and 1.5 nats, mean 1. Their token average is 6 / 4.
    given = logits((1.0, 0.5, 1.5), (3.0, 9.0, 9.0))
    for weight, expected in {1.0: 2.0, 0.0: 1.0, 0.3: 0.3 * 2 + 0.7 * 1, None: 1.5}.items():
        assert float(span_loss(given, LABELS, SPANS, weight)) == pytest.approx(expected, abs=1e-5)


def test_without_a_weight_it_is_the_loss_of_transformers(tiny_qwen, tiny_batch) -> None:
    batch, model = tiny_batch(), tiny_qwen()
    labels = batch.ids.masked_fill(batch.labels < 0, -100)
    output = model(input_ids=batch.ids, labels=labels, **batch.inputs, **batch.aligned)
    assert float(span_loss(output.logits, labels, batch.labels).detach()) == pytest.approx(float(output.loss.detach()), rel=1e-5)


def test_micro_batches_with_the_counts_of_the_step_sum_to_the_step() -> None:
    given = logits((1.0, 0.5, 1.5), (3.0, 9.0, 9.0))
    parts = [span_loss(given[i : i + 1], LABELS[i : i + 1], SPANS[i : i + 1], 0.3, counts=(2, 2)) for i in range(2)]
    assert float(sum(parts)) == pytest.approx(float(span_loss(given, LABELS, SPANS, 0.3)), rel=1e-6)


def test_a_span_without_tokens_adds_nothing() -> None:
    given = logits((1.0, 0.5, 1.5), (3.0, 9.0, 9.0))
    only = SPANS.where(SPANS != 0, -1)
    assert float(span_loss(given, LABELS.where(only >= 0, -100), only, 0.25)) == pytest.approx(0.75 * 1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weight": 1.5}, r"weight must lie in \[0, 1\], got 1.5"),
        ({"spans": SPANS[:, :3]}, r"must agree, got \[\[2, 4, 4\], \[2, 4\], \[2, 3\]\]"),
        ({"spans": SPANS.masked_fill(SPANS == 1, -1)}, "A token with a label has no span"),
    ],
)
def test_what_cannot_be_weighed_is_refused(change, sentence) -> None:
    given = {"logits": torch.zeros(2, 4, 4), "labels": LABELS, "spans": SPANS, "weight": 0.5} | change
    with pytest.raises(ValueError, match=sentence):
        span_loss(**given)
