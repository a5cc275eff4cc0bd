"""Staged: perception first, then reasoning from text, then reasoning from pictures (RL)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.config.schema import fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """Three stages of RL, one after the other: what is rewarded, and what is shown.

        1. visual perception   w = perception, pictures    until perception_frac of the steps
        2. textual reasoning   w = reasoning, p* as text in place of the picture    for text_frac of the steps
        3. visual reasoning    w = reasoning, pictures     to the end

    - In stage 2 the percept of a response is a copy of the text, and only the outcome is worth rewarding.
    - In SFT a stage of text is `paradigm.text_frac`, and `balance=schedule` has the stages of weights: refused there.

    Weight: 1 in the first stage, 0 in the others; RL only.

    Source: "From Seeing to Thinking: Decoupling Perception and Reasoning Improves Post-Training of Vision-Language Models"
    (arXiv:2605.20177), of which the abstract and the authors' page (UCSC-VLAA/VLM-CapCurriculum: perception, textual reasoning, visual
    reasoning, each by RL with verifiable rewards) were read. Its stages have data of their own; here they share the task, and stage 1
    rewards the percept of the same answers. Equal thirds are our choice.

    >>> from percasym.balance.base import SpanStats
    >>> staged, steps = Staged(), [SpanStats(step=step, num_steps=6, counts=(0, 8)) for step in range(6)]
    >>> [(staged.step(staged.start(), stats).weight, staged.reads_text(stats.step, 6)) for stats in steps]
    [(1.0, False), (1.0, False), (0.0, True), (0.0, True), (0.0, False), (0.0, False)]
    """

    needs: ClassVar[Needs] = "counts"

    perception_frac: float = 1 / 3
    """Share of the steps of the first stage."""
    text_frac: float = 1 / 3
    """Share of the steps of the second stage; 0 leaves it out."""
    perception: float = 1.0
    """w of the first stage; 1 rewards perception alone."""
    reasoning: float = 0.0
    """w of the other stages; 0 rewards the outcome alone."""

    def __post_init__(self) -> None:
        fraction("balance", perception_frac=self.perception_frac, text_frac=self.text_frac)
        fraction("balance", perception=self.perception, reasoning=self.reasoning)
        if self.perception_frac + self.text_frac > 1:
            total = self.perception_frac + self.text_frac
            raise ValueError(f"balance.perception_frac + balance.text_frac must be at most 1, got {total:g}: the rest is visual reasoning.")

    def start(self) -> BalanceState:
        """The weight of the first stage."""
        return BalanceState(weight=self.perception)

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """The weight of this step."""
        return BalanceState(weight=self.perception if stats.step < self._first(stats.num_steps) else self.reasoning)

    def reads_text(self, step: int, num_steps: int) -> bool:
        """Whether the prompts of this step (from 0) have p* as text in place of the picture."""
        return self._first(num_steps) <= step < round((self.perception_frac + self.text_frac) * num_steps)

    def _first(self, num_steps: int) -> int:
        return round(self.perception_frac * num_steps)
