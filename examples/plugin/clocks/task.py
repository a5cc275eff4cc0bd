"""Read an analogue clock: p* is the time that it shows, the answer the time some minutes later.

python train.py --config-dir examples/plugin/conf plugins=[clocks] task=clock
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import cos, pi, sin
from typing import ClassVar, Literal

from percasym.config.schema import at_least, one_of
from percasym.spans.grammar import Grammar
from percasym.tasks.base import SyntheticTask, draw_until_in_split
from percasym.tasks.canvas import Canvas, Look
from percasym.types import Prompt, Sample, SampleKey

Question = Literal["brief", "full"]
TIME = re.compile(r"(0[1-9]|1[0-2]):([0-5][0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock(SyntheticTask):
    """Analogue clocks; a percept is the time as `HH:MM` with hours 01 to 12, the answer is the time `later` minutes after it."""

    name: ClassVar[str] = "clock"

    later: int = 35
    """Minutes from the time shown to the time asked for, 1 to 719."""
    every: int = 1
    """Minutes between the times that may be shown: 5 shows multiples of five minutes only."""
    question: Question = "brief"
    """`full` states the response format, for models that were not built for it."""
    look: Look = field(default_factory=Look)
    """How the picture is drawn."""

    def __post_init__(self) -> None:
        at_least("task", 1, later=self.later, every=self.every)
        one_of("task", Question, question=self.question)
        if self.later > 719 or 60 % self.every:
            raise ValueError(f"task.later must be at most 719 and task.every must divide 60, got {self.later} and {self.every}.")

    def truth(self, key: SampleKey) -> str:
        """The percept p* of a key, without drawing it."""
        return draw_until_in_split(key, lambda attempt: written(key.rng("time", attempt).randrange(0, 720, self.every)), self.canonical)

    def sample(self, key: SampleKey) -> Sample:
        """The sample of a key: same key, same bytes."""
        truth = self.truth(key)
        shown = minutes(truth)
        assert shown is not None
        solution = written(shown + self.later)
        hour, minute = int(truth[:2]), int(truth[3:])
        carried = f"{minute} + {self.later} = {minute + self.later} minutes after {hour}"
        reasoning = f"The clock shows {truth}. {carried}, which is {solution}."
        return Sample(
            prompt=Prompt(key=key, image=self.draw(truth, key), question=self._question()),
            truth=truth,
            solution=solution,
            demonstration=Grammar().demonstrate(truth, reasoning, solution),
        )

    def parse(self, text: str) -> str | None:
        """The time without the white space around it; None unless it is exactly `HH:MM`."""
        shown = minutes(text)
        return None if shown is None else written(shown)

    def agreement(self, truth: str, stated: str) -> float:
        """Half for the hour and half for the minute; 0 when one of the two is no time."""
        one, other = self.parse(truth), self.parse(stated)
        if one is None or other is None:
            return 0.0
        return sum(a == b for a, b in zip(one.split(":"), other.split(":"), strict=True)) / 2

    def verify(self, percept: str, answer: str) -> bool:
        """Whether `answer` is the time `later` minutes after `percept`."""
        right = self.solve(percept)
        return right is not None and self.parse(answer) == right

    def draw(self, percept: str, key: SampleKey) -> bytes:
        """The picture of a time as PNG bytes; the key decides the look only."""
        shown = minutes(percept)
        if shown is None:
            raise ValueError(f"Only a time HH:MM can be drawn, got {percept!r}. Parse the percept first.")
        canvas, side = Canvas(self.look, key.rng("look")), self.look.image_px
        centre = canvas.moved((side / 2, side / 2), side / 8)
        canvas.disc(centre, 0.42 * side, 0.02 * side)
        for mark in range(12):
            canvas.line(_on_face(centre, 0.36 * side, mark / 12), _on_face(centre, 0.42 * side, mark / 12), 0.02 * side)
        canvas.line(centre, _on_face(centre, 0.2 * side, shown / 720), 0.05 * side)
        canvas.line(centre, _on_face(centre, 0.34 * side, shown % 60 / 60), 0.025 * side)
        return canvas.png()

    def solve(self, percept: str) -> str | None:
        """The time `later` minutes after a percept, or None when it is no time."""
        shown = minutes(percept)
        return None if shown is None else written(shown + self.later)

    def valid(self, percept: str) -> bool:
        """Whether this clock could show the percept."""
        shown = minutes(percept)
        return shown is not None and shown % self.every == 0

    def canonical(self, percept: str) -> str:
        """The percept itself: two times are two puzzles."""
        return percept

    def _question(self) -> str:
        brief, tags = f"What time is it in {self.later} minutes?", Grammar()
        if self.question == "brief":
            return brief
        return (
            f"This is an analogue clock. {brief}\nFirst write {tags.open_perception}, the time that the clock shows as HH:MM with hours "
            f"from 01 to 12, and {tags.close_perception}. Then reason step by step. Last, write {tags.open_answer}, the later time in "
            f"the same form, and {tags.close_answer}."
        )


def minutes(text: str) -> int | None:
    """Minutes after 12 o'clock of a time; None where the text is no time.

    >>> minutes("12:05"), minutes("03:00"), minutes("3 o'clock")
    (5, 180, None)
    """
    found = TIME.fullmatch(text.strip(" \t\r\n"))
    return int(found[1]) % 12 * 60 + int(found[2]) if found else None


def written(shown: int) -> str:
    """A number of minutes after 12 o'clock as a time.

    >>> written(5), written(180), written(720)
    ('12:05', '03:00', '12:00')
    """
    hour, minute = divmod(shown % 720, 60)
    return f"{hour or 12:02d}:{minute:02d}"


def _on_face(centre: tuple[float, float], radius: float, turn: float) -> tuple[float, float]:
    """The point at this radius after `turn` of a full turn, clockwise from the top."""
    return centre[0] + radius * sin(2 * pi * turn), centre[1] - radius * cos(2 * pi * turn)
