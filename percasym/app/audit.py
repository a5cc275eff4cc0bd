"""`percasym audit`: how much of training would be perception, before any training.

One pass over some samples, with the trainer's own forward, backward and bookkeeping; nothing is updated or written.

    percasym audit task=jsonl task.path=rows.jsonl model.path=DIR --samples 64
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from percasym.app.recipes.sft import SftRecipe
from percasym.balance.base import Gramian, SpanStats
from percasym.balance.ngdiff import NGDiff
from percasym.config.paradigm import Sft
from percasym.config.schema import ConfigError
from percasym.config.settings import Settings, TorchSettings
from percasym.data.generated import Generated
from percasym.engine.span_gradients import Parts, dot
from percasym.engine.torch import torch_engine
from percasym.models.adapt import PARTS, Part, part_of
from percasym.models.checkpoint import quiet
from percasym.objectives.coefficients import span_counts
from percasym.tasks.base import data_summary
from percasym.training.sft import backward, means
from percasym.training.shares import Share, part, share_of
from percasym.types import Span

STARVED = 0.2
"""Share of the gradient below which perception is called starved: at 8 to 12 % in the language model balancing raised a_p by 7 to 9 points,
at 36 % there was nothing to raise (experiments/sft_balance)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What the first step of training on these samples would be made of."""

    stats: SpanStats
    """Tokens, losses and gradients of the whole model."""
    groups: Mapping[Part, Gramian]
    """The gradients of each part that is trained; they add up to that of the whole."""
    chance: float
    """Nats of a token for whoever guesses blindly: ln of the vocabulary's size."""
    data: str | None
    """What was read, where samples were collected."""

    @property
    def share(self) -> Share:
        """Perception's part of token-averaged training."""
        return share_of(self.stats)

    @property
    def ngdiff(self) -> float:
        """The weight of perception that NGDiff would choose."""
        return NGDiff().step(NGDiff().start(), self.stats).weight

    def gradient_share(self, gramian: Gramian) -> float:
        """Perception's part of a gradient under the token average."""
        (seen, thought), (seen_norm, thought_norm) = self.stats.counts, gramian.norms
        return part(seen * seen_norm, thought * thought_norm)

    def caution(self) -> str | None:
        """Where the model does worse than a blind guess: that it has never met such texts, so that its first gradients are of no use."""
        assert self.stats.losses is not None
        known = [(count, loss) for count, loss in zip(self.stats.counts, self.stats.losses, strict=True) if count]
        nats = sum(count * loss for count, loss in known) / max(1, sum(count for count, _ in known))
        if nats <= self.chance:
            return None
        return (
            f"A token costs {nats:.1f} nats here, and a blind guess {self.chance:.1f}: this model has never met such texts, and its first "
            "steps will learn the words. Train briefly and audit that checkpoint, too (model.path=RUN/final)."
        )

    def advice(self) -> str:
        """Is perception starved, and which balance to try?"""
        share, weight = self.share, self.ngdiff
        assert self.stats.gramian is not None
        if not min(self.stats.counts) or not min(self.stats.gramian.norms):
            return "One span has no gradient here, so there is nothing to balance: look at the data and at model.freeze."
        if "language" not in self.groups:
            return "The language model is frozen, so reasoning is hardly trained: balancing has nothing to share out there."
        starved = self.gradient_share(self.groups["language"])
        own = [name for name in ("vision", "projector") if name in self.groups]
        if starved >= STARVED:
            return (
                f"Perception is not starved: it has {starved:.0%} of the language model's gradient. Begin with balance=none; "
                f"balance=ngdiff would start at w = {weight:.2f}, the token average is {share.tokens:.2f}."
            )
        elsewhere = f" But {' and '.join(own)} can learn to see at any weight: try model.freeze=[{','.join(own)}] too." if own else ""
        return (
            f"Perception is starved: it has {starved:.0%} of the language model's gradient. Try balance=ngdiff, which would start at "
            f"w = {weight:.2f} (token average: {share.tokens:.2f}), and beside it balance=fixed balance.weight={weight:.2f}.{elsewhere}"
        )


def audit(settings: Settings, *, num_samples: int, device: torch.device) -> Audit:
    """Measure the first `num_samples` training samples of a configuration, as its first step would with `paradigm.batch_size=num_samples`.

    Raises ConfigError for a wrong number, for paradigm=rl, and for data or a checkpoint that cannot be read.
    """
    paradigm = settings.paradigm
    if num_samples < 1:
        raise ConfigError(f"--samples must be at least 1, got {num_samples}.")
    if not isinstance(paradigm, Sft):
        raise ConfigError("percasym audit measures demonstrations, and paradigm=rl has none. Leave paradigm=rl out.")
    quiet()
    torch.manual_seed(settings.seed)
    rows = max(size for size in range(1, min(paradigm.micro_batch_size, num_samples) + 1) if num_samples % size == 0)
    data = Generated(
        task=settings.task,
        family=settings.family,
        batch_size=num_samples,
        micro_batch_size=rows,
        seed=settings.seed,
        split=SftRecipe.split,
        text_frac=paradigm.text_frac,
    )
    try:
        window = data.window(0)
        precision = TorchSettings(precision=settings.engine.precision)  # Any engine has the same gradient; this one needs no set-up.
        model = settings.family.load()
        chance = math.log(model.config.get_text_config().vocab_size)
        engine = torch_engine(model, settings=precision, paradigm=paradigm, device=device)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    seen, thought = (int(count) for count in span_counts(batch.labels for batch in window))
    counts = (seen, thought)
    trained = {name: parameter for name, parameter in engine.model.named_parameters() if parameter.requires_grad}
    gradients: dict[Span, dict[str, torch.Tensor | None]] = {}
    for span, batches in ((Span.perception, [batch.until(Span.perception) for batch in window]), (Span.reasoning, window)):
        sums = backward(engine, batches, {span: 1.0}, counts)
        gradients[span] = {name: parameter.grad for name, parameter in trained.items()}
        engine.keep_gradient(span)
    owners = {name: part_of(name, settings.family.parts) for name in trained}

    def of(group: Part) -> Iterator[Parts]:
        return ([gradient for name, gradient in gradients[span].items() if owners[name] == group] for span in Span)

    return Audit(
        stats=SpanStats(step=0, num_steps=1, counts=counts, losses=means(sums, counts), gramian=engine.gramian()),
        groups={group: products(*of(group)) for group in PARTS if group in owners.values()},
        chance=chance,
        data=None if (about := settings.task.about()) is None else data_summary(about),
    )


def products(perception: Parts, reasoning: Parts) -> Gramian:
    """Inner products of two gradients."""
    return Gramian(
        perception=dot(perception, perception).item(), reasoning=dot(reasoning, reasoning).item(), cross=dot(perception, reasoning).item()
    )
