"""What a rollout engine is: prompts in, groups of sampled completions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from transformers import PreTrainedModel

from percasym.types import Prompt, Rollout


class RolloutEngine(Protocol):
    """Samples from the weights it was last shown."""

    def refresh(self, model: PreTrainedModel) -> None:
        """Sample from these weights from now on."""
        ...

    def generate(
        self, prompts: Sequence[Prompt], *, group_size: int, seed: int, advance: Callable[[int], None] = lambda num_rows: None
    ) -> list[list[Rollout]]:
        """`group_size` rollouts of each prompt, with the log-probability of each token; `advance` hears of finished rows.

        A rollout is a function of the weights, its prompt, `seed` and its place in the group, whatever else is in the batch.
        """
        ...
