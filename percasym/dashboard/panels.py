"""Which charts tell a study's story, in which order: plain values, drawn by whoever shows them."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Metrics over optimizer steps."""

    title: str
    metrics: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """A point for each run, at its last values of two metrics."""

    title: str
    x: str
    y: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """Both."""
        return self.x, self.y


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """The last values of some metrics."""

    title: str
    metrics: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The last samples of each run, one below the other."""

    name: str
    metrics: tuple[str, ...]
    """Logged by the runs that have such samples."""


Panel = Lines | Scatter | Bars | Tables

A, A_P, A_R, WEIGHT = "eval/end_to_end", "eval/perception", "eval/reasoning", "balance/weight"


def sections(logged: Set[str]) -> list[tuple[str, list[Panel]]]:
    """Titles and panels for runs that logged these metrics; a panel keeps those of its metrics that they did, and goes without any.

    >>> [(title, [panel.title for panel in panels]) for title, panels in sections({"lr", "grad/cosine", "grad/norm"})]
    [('Gradients', ['cosine of both', 'norm before clipping'])]
    """
    kept = [(title, [panel for one in panels if (panel := _known(one, logged)) is not None]) for title, panels in _story(logged)]
    return [(title, panels) for title, panels in kept if panels]


def _story(logged: Set[str]) -> list[tuple[str, Sequence[Panel]]]:
    rewards = sorted(parts[1] for name in logged if (parts := name.split("/"))[0] == "reward" and parts[-1] == "mean")
    surrogates = [name for name in rewards if name not in ("outcome", "perception", "total")]

    def each(pattern: str, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(pattern.format(name) for name in names)

    together = ("corr/outcome/perception", *each("corr/{}/perception", surrogates))
    return [
        (
            "What a weight buys",
            [
                Scatter(title="frontier: reasoning a_r against perception a_p", x=A_P, y=A_R),
                Scatter(title="end to end a against the weight of perception", x=WEIGHT, y=A),
                Scatter(title="end to end a against perception a_p", x=A_P, y=A),
            ],
        ),
        (
            "Seeing and thinking",
            [
                Lines(title="asymmetry: perception a_p and reasoning a_r", metrics=(A_P, A_R)),
                Lines(title="end to end a", metrics=(A,)),
                Lines(title="perception a_p", metrics=(A_P,)),
                Lines(title="reasoning a_r", metrics=(A_R,)),
                Lines(title="faithful", metrics=("eval/faithful",)),
            ],
        ),
        (
            "What perception weighs",
            [
                Lines(title="weight w", metrics=(WEIGHT,)),
                Lines(title="share of the tokens", metrics=("share/tokens",)),
                Lines(title="share of the loss", metrics=("share/loss",)),
                Lines(title="share of the gradient", metrics=("share/gradient",)),
            ],
        ),
        (
            "Gradients",
            [
                Lines(title="norms of both", metrics=("grad/perception", "grad/reasoning")),
                Lines(title="cosine of both", metrics=("grad/cosine",)),
                Lines(title="norm before clipping", metrics=("grad/norm",)),
            ],
        ),
        (
            "Losses",
            [
                Lines(title="perception and reasoning", metrics=("loss/perception", "loss/reasoning")),
                Lines(title="policy", metrics=("loss/policy",)),
                Lines(title="policy: clipped, drift and KL", metrics=("policy/clipped", "policy/drift", "policy/kl")),
            ],
        ),
        (
            "Rewards",
            [
                Lines(title="outcome, perception, total", metrics=each("reward/{}/mean", ("outcome", "perception", "total"))),
                Lines(title="surrogates", metrics=each("reward/{}/mean", surrogates)),
                Lines(title="prompts that teach nothing", metrics=each("reward/{}/zero_variance", ("outcome", "perception", "total"))),
            ],
        ),
        (
            "What goes together with perception",
            [
                Lines(title="within prompts: r of each reward and a_p", metrics=tuple(f"{name}/within" for name in together)),
                Bars(title="at the last step: r over all rollouts", metrics=together),
                Lines(title="across prompts: r of a with a_p and a_r", metrics=each("corr/outcome/{}/across", ("perception", "reasoning"))),
            ],
        ),
        ("Samples", [Tables(name="samples/test", metrics=(A,)), Tables(name="samples/rollouts", metrics=("reward/total/mean",))]),
    ]


def _known(panel: Panel, logged: Set[str]) -> Panel | None:
    known = tuple(name for name in panel.metrics if name in logged)
    if isinstance(panel, Scatter | Tables):
        return panel if known == panel.metrics else None
    return type(panel)(title=panel.title, metrics=known) if known else None
