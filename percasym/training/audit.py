"""What an audit found: perception's share of tokens, loss and gradient in a first step, and which balance to try.

`percasym audit` measures it with a configuration's own data and engine, `percasym.audit(model, rows)` in someone else's trainer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from percasym.balance.base import Gramian, SpanStats, equalizing_weight
from percasym.engine.inner_products import Parts, gramian
from percasym.models.adapt import Part
from percasym.training.span_gradients import Share, part, share_of

SMALL = 0.2
"""Share of the language model's gradient below which balancing is worth a run: `SEEN`; at 36 % it gave none (experiments/earlier)."""
SEEN = (
    "In our own pairs of runs, tiny models with shares of 0.3 to 18 %, NGDiff raised a_p by 4 to 19 points and cost 1 to 22 points of a_r; "
    "the end result a changed by -17 to +5 points, mostly within its interval (experiments/balancing_map)."
)
"""What balancing gave and cost: the ranges over that study's pairs."""
THRESHOLD = 118.2
"""Coupling x steps from which on NGDiff raised a over ordinary training; below, it lowered a (experiments/balancing_map, rule.json)."""
STEPS = (300, 600)
"""Steps of the pairs of runs that made this rule; it says nothing of others."""
HITS_MADE, HITS_HELD_OUT = (11, 12), (6, 7)
"""How often it names the sign of the change: hits and pairs, of those that made it and of others at these steps."""
HITS_TRIVIAL = 6
"""The same of the others by the better of always and never balancing."""
MIN_ANSWERS = 20
"""Answers with a right percept, and with a wrong one, below which their accuracies say nothing (our choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupling:
    """What a right percept is worth to a model before training: how often its answer is right with one, and without."""

    right: float
    """a among answers whose percept is p*, in [0, 1]; nan where there are none."""
    wrong: float
    """a among the others."""
    num_right: int
    """Answers whose percept is p*."""
    num_wrong: int

    @classmethod
    def of(cls, answers: Iterable[tuple[bool, bool]]) -> Coupling:
        """From answers as (is the percept p*?, is the answer right?).

        >>> Coupling.of([(True, True), (True, False), (False, False), (False, False)]).value
        0.5
        """
        sides: dict[bool, list[bool]] = {True: [], False: []}
        for perception, outcome in answers:
            sides[bool(perception)].append(bool(outcome))
        right, wrong = (sum(side) / len(side) if side else math.nan for side in (sides[True], sides[False]))
        return cls(right=right, wrong=wrong, num_right=len(sides[True]), num_wrong=len(sides[False]))

    @property
    def value(self) -> float:
        """a with a right percept minus a without; nan where all percepts are right, or all wrong."""
        return self.right - self.wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """How the reader of an audit writes what the advice names."""

    none: str = "balance=none"
    ngdiff: str = "balance=ngdiff"
    fixed: str = "balance=fixed balance.weight={:.2f}"
    freeze: str = "model.freeze=[{}]"
    """With the names of parts."""
    frozen: str = "model.freeze"
    """What decides which parts are trained."""
    again: str = "audit that checkpoint, too (model.path=RUN/final)"
    answers: str = "run percasym evaluate on this model, and give its folder as --evaluation"
    steps: str = "paradigm.steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Tokens, losses and gradients of the first training step on these samples."""

    stats: SpanStats
    """Those of the whole model."""
    groups: Mapping[Part, Gramian]
    """Gradients of each trained part of the model; they sum to that of the whole."""
    chance: float
    """Loss of a uniform guess in nats per token: ln of the vocabulary's size."""
    data: str | None
    """How many rows were read and dropped, for tasks that read files; None otherwise."""
    num_samples: int
    """Samples that were measured."""
    coupling: Coupling | None = None
    """Of the model's answers before training, where they are known."""
    num_steps: int | None = None
    """Optimizer steps of the training that is planned, where known."""
    spelling: Spelling = field(default=Spelling(), compare=False, repr=False)
    """That of the command line, unless someone else's trainer asks."""

    @property
    def share(self) -> Share:
        """Perception's share under the token average."""
        return share_of(self.stats)

    @property
    def ngdiff(self) -> float:
        """The weight of perception that NGDiff would choose."""
        gramian = self.stats.gramian
        assert gramian is not None
        usable = all(0 < norm < math.inf for norm in gramian.norms)
        return equalizing_weight(*gramian.norms) if usable else 0.5  # Its start, which it keeps where a norm is zero.

    def gradient_share(self, gramian: Gramian) -> float:
        """Perception's share of a gradient under the token average."""
        perception, reasoning = (count * norm for count, norm in zip(self.stats.counts, gramian.norms, strict=True))
        return part(perception, reasoning)

    def caution(self) -> str | None:
        """A warning where the loss is above that of a uniform guess, so that the first gradients mean little; None otherwise."""
        assert self.stats.losses is not None
        measured = [(count, loss) for count, loss in zip(self.stats.counts, self.stats.losses, strict=True) if count]
        nats = sum(count * loss for count, loss in measured) / max(1, sum(count for count, _ in measured))
        if nats <= self.chance:
            return None
        return (
            f"A token costs {nats:.1f} nats here, and a blind guess {self.chance:.1f}: this model has never met such texts, and its first "
            f"steps will learn the words. Train briefly and {self.spelling.again}."
        )

    def advice(self) -> str:
        """Perception's share, what balancing gave and cost at such shares, and which balance to try."""
        share, weight, says = self.share, self.ngdiff, self.spelling
        assert self.stats.gramian is not None
        if not min(self.stats.counts) or not min(self.stats.gramian.norms):
            return f"One span has no gradient here, so there is nothing to balance: look at the data and at {says.frozen}."
        if "language" not in self.groups:
            return "The language model is frozen, so reasoning is hardly trained: balancing has nothing to share out there."
        own = self.gradient_share(self.groups["language"])
        trained = [name for name in ("vision", "projector") if name in self.groups]
        if own >= SMALL:
            return (
                f"Perception has {own:.0%} of the language model's gradient; at 36 % balancing raised nothing in our own studies "
                f"(experiments/earlier). Begin with {says.none}; {says.ngdiff} would start at w = {weight:.2f}, the token average is "
                f"{share.tokens:.2f}.{'' if self.coupling is None else ' ' + self.outlook()}"
            )
        elsewhere = (
            f" But {' and '.join(trained)} can learn to see at any weight: try {says.freeze.format(','.join(trained))} too."
            if trained
            else ""
        )
        return (
            f"Perception has {own:.0%} of the language model's gradient. {SEEN} {self.outlook()} "
            f"Run {says.none} beside {says.ngdiff}, which would start "
            f"at w = {weight:.2f} (token average: {share.tokens:.2f}), and a smaller constant weight, which costs less: "
            f"{says.fixed.format(modest(share.tokens, weight))}.{elsewhere}"
        )

    def outlook(self) -> str:
        """What the rule of experiments/balancing_map expects NGDiff to do to a; or what is missing to say so."""
        found, steps, says = self.coupling, self.num_steps, self.spelling
        if found is None:
            return f"Whether that pays depends on what a right percept is worth: {says.answers}."
        seen = f"{found.num_right} of {found.num_right + found.num_wrong} answers before training have a right percept"
        if min(found.num_right, found.num_wrong) < MIN_ANSWERS:
            return f"{seen}; with fewer than {MIN_ANSWERS} on a side they do not say what a right percept is worth."
        worth = f"{seen}; {found.right:.0%} of those are right and {found.wrong:.0%} of the others, a difference of {found.value:+.2f}."
        low, high = STEPS
        if steps is None:
            return f"{worth} What that predicts depends on the steps of the training ({says.steps})."
        if not low <= steps <= high:
            return f"{worth} Our rule for what that predicts was measured at {low} to {high} steps, and this training has {steps}."
        number = found.value * steps
        return (
            f"{worth} Times {steps} steps that is {number:.1f}, and our rule expects {says.ngdiff} to raise a above {THRESHOLD:.1f} and to "
            f"lower it below. It names the sign in {HITS_MADE[0]} of the {HITS_MADE[1]} pairs of runs of tiny models that made it and in "
            f"{HITS_HELD_OUT[0]} of {HITS_HELD_OUT[1]} others at such steps; the better of always and never balancing in {HITS_TRIVIAL} "
            "(experiments/balancing_map)."
        )


def modest(tokens: float, equalizing: float) -> float:
    """A weight between the token average and the one that equalises gradients: their geometric mean.

    >>> round(modest(0.02, 0.5), 3)
    0.1
    """
    return math.sqrt(tokens * equalizing)


def products(perception: Parts, reasoning: Parts) -> Gramian:
    """Inner products of two gradients."""
    of_perception, of_reasoning, cross = gramian(perception, reasoning).tolist()
    return Gramian(perception=of_perception, reasoning=of_reasoning, cross=cross)
