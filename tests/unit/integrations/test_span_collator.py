"""SpanCollator: spans where the inner collator put the tokens, padded on either side, given or by a rule."""

from __future__ import annotations

import pytest
import torch

from percasym import SpanCollator
from percasym.models.qwen3vl import Qwen3VL

PAD = 0


@pytest.fixture(scope="module")
def tokenizer():
    return Qwen3VL().codec().tokenizer


def padded(side: str, mask: bool = True):
    """A collator of features {"input_ids", "labels"}."""

    def collate(features):
        width = max(len(feature["input_ids"]) for feature in features)

        def row(values, filler):
            missing = [filler] * (width - len(values))
            return [*values, *missing] if side == "right" else [*missing, *values]

        fillers = {"input_ids": PAD, "labels": -100}
        batch = {name: torch.tensor([row(feature[name], filler) for feature in features]) for name, filler in fillers.items()}
        ones = torch.tensor([row([1] * len(feature["input_ids"]), 0) for feature in features])
        return {**batch, "attention_mask": ones} if mask else batch

    return collate


def feature(tokenizer, text: str) -> dict:
    """Three tokens of a prompt, then a response with a loss."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    return {"input_ids": [7, 8, 9, *ids], "labels": [-100] * 3 + ids}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_rule_labels_the_response_of_each_row(tokenizer, side: str) -> None:
    texts = ("<perception>1</perception>So 1 is 1.", "<perception>12\n30</perception>1")
    batch = SpanCollator(padded(side), tokenizer)([feature(tokenizer, text) for text in texts])
    assert torch.equal(batch["spans"] >= 0, batch["labels"] != -100)
    for row, text in enumerate(texts):
        seen = batch["input_ids"][row][batch["spans"][row] == 0].tolist()
        assert tokenizer.decode(seen) == text.partition("</perception>")[0] + "</perception>"


@pytest.mark.parametrize(("side", "mask"), [("left", True), ("right", True), ("right", False)])
def test_given_spans_are_put_where_their_tokens_are(side: str, mask: bool) -> None:
    features = [
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "spans": [-1, 0, 1]},
        {"input_ids": [5, 6], "labels": [-100, 6], "spans": [1, 1]},
    ]
    batch = SpanCollator(padded(side, mask))(features)
    # A token without a label has no span, whatever was given for it.
    expected = [[-1, 0, 1], [-1, 1, -1]] if side == "right" else [[-1, 0, 1], [-1, -1, 1]]
    assert batch["spans"].tolist() == expected


def test_rows_without_perception_are_counted(tokenizer) -> None:
    collator = SpanCollator(padded("right"), tokenizer, missing="reasoning")
    collator([feature(tokenizer, "So 1."), feature(tokenizer, "<perception>1</perception>1")])
    assert collator.num_missing == 1


def test_what_cannot_be_labelled_is_refused(tokenizer) -> None:
    own = {"input_ids": [5, 6], "labels": [-100, 6]}
    with pytest.raises(ValueError, match="Row 1 of a batch has no column spans, and others have"):
        SpanCollator(padded("right"))([{**own, "spans": [-1, 0]}, own])
    with pytest.raises(ValueError, match="Row 0 of a batch has 3 spans and 2 tokens"):
        SpanCollator(padded("right"))([{**own, "spans": [-1, 0, 1]}])
    with pytest.raises(ValueError, match="SpanCollator needs a tokenizer"):
        SpanCollator(padded("right"))([own])
    with pytest.raises(ValueError, match="No perception was found"):
        SpanCollator(padded("right"), tokenizer)([feature(tokenizer, "So 1.")])
