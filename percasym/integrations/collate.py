"""A collator that adds the column `spans` to the batches of another one.

    collator = SpanCollator(DataCollatorForSeq2Seq(tokenizer), tokenizer)                   # by the tags <perception> and </perception>
    collator = SpanCollator(inner, tokenizer, re.compile(r"^(.*?)\nReasoning:", re.S))      # by a regular expression
    collator = SpanCollator(inner, tokenizer, lambda text: [(0, text.index("Answer"))])     # by a function

Where the features have a column `spans` already, it is padded as the inner collator padded the labels. Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from percasym.integrations.label import TAGS, Missing, Rule, label_spans, require_rule
from percasym.types import UNSUPERVISED

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""transformers' label of a token without a loss."""


class SpanCollator:
    """The batch of `inner` with `spans` [B, T] int64: 0 perception, 1 reasoning, -1 on tokens without a loss.

    The tokens of a row with a label are its response: mask the prompt in `labels` (-100), or the rule reads the prompt, too.
    """

    def __init__(
        self, inner: Callable[[list[Any]], Mapping[str, Any]], tokenizer: Any = None, perception: Rule = TAGS, *, missing: Missing = "raise"
    ) -> None:
        """`tokenizer`, `perception` and `missing` are those of `label_spans`; none is needed where the features have `spans`.

        With `missing="reasoning"`, `num_missing` counts the rows without perception. Raises ValueError for what is no rule.
        """
        require_rule(perception, missing)
        self._inner, self._tokenizer, self._rule, self._missing = inner, tokenizer, perception, missing
        self.num_missing = 0

    def __call__(self, features: list[Any], *arguments: Any) -> dict[str, Any]:
        """The inner batch with `spans`. Raises ValueError where a row cannot be labelled, or its `spans` do not fit its tokens."""
        given = [feature.get("spans") if isinstance(feature, Mapping) else None for feature in features]
        named = [spans is not None for spans in given]
        if any(named) and not all(named):
            raise ValueError(f"Row {named.index(False)} of a batch has no column spans, and others have. Give it in all rows or in none.")
        if all(named):
            features = [{name: value for name, value in feature.items() if name != "spans"} for feature in features]
        batch = dict(self._inner(features, *arguments))
        if "spans" not in batch:
            batch["spans"] = self._placed(given, batch) if all(named) else self._labelled(batch)
        return batch

    def _labelled(self, batch: Mapping[str, Any]) -> Tensor:
        """[B, T] spans by the rule, of the tokens with a label."""
        import torch

        if self._tokenizer is None:
            raise ValueError("SpanCollator needs a tokenizer to label spans by a rule. Pass one, or give the column `spans`.")
        spans = torch.full_like(batch["labels"], UNSUPERVISED)
        for row, (ids, labels) in enumerate(zip(batch["input_ids"], batch["labels"], strict=True)):
            response = labels != IGNORED
            found = label_spans(ids[response].tolist(), self._tokenizer, self._rule, missing=self._missing)
            self.num_missing += bool(found) and 0 not in found
            spans[row, response] = torch.tensor(found, dtype=spans.dtype)
        return spans

    def _placed(self, given: Sequence[Any], batch: Mapping[str, Any]) -> Tensor:
        """[B, T] spans of the features, where the inner collator put their tokens."""
        import torch

        spans = torch.full_like(batch["labels"], UNSUPERVISED)
        mask = batch.get("attention_mask")
        for row, values in enumerate(given):
            width = spans.shape[1] if mask is None else int(mask[row].sum())
            if mask is None and len(values) < width:
                width = len(values)  # Padded on the right.
            if len(values) != width:
                raise ValueError(f"Row {row} of a batch has {len(values)} spans and {width} tokens. Give one span for each of input_ids.")
            where = slice(0, width) if mask is None else mask[row].bool()
            spans[row, where] = torch.as_tensor(values, dtype=spans.dtype)
        return spans.masked_fill(batch["labels"] == IGNORED, UNSUPERVISED)
