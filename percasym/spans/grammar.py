"""The response format: one perception, then reasoning that ends in one answer.

    <perception>p*</perception> reasoning ... <answer>answer</answer>

Unlike a lenient extractor, the parser returns no percept or no answer for any other form, with the faults: a lenient parser can be
exploited by the policy that it grades.
"""

from __future__ import annotations

from dataclasses import dataclass

from percasym.types import Demonstration, Fault, Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """The four tags; only white space around the whole response is ignored."""

    open_perception: str = "<perception>"
    close_perception: str = "</perception>"
    open_answer: str = "<answer>"
    close_answer: str = "</answer>"

    @property
    def tags(self) -> tuple[str, str, str, str]:
        """The tags in their required order."""
        return (self.open_perception, self.close_perception, self.open_answer, self.close_answer)

    def perception(self, percept: str) -> str:
        """The perception span of a percept, tags included."""
        return f"{self.open_perception}{percept}{self.close_perception}"

    def demonstrate(self, percept: str, reasoning: str, answer: str) -> Demonstration:
        """A reference response as its two spans. Raises ValueError when a part contains a tag.

        >>> Grammar().demonstrate("AB", " So A1 B2.", "A1 B2").reasoning
        ' So A1 B2.<answer>A1 B2</answer>'
        """
        for name, part in (("percept", percept), ("reasoning", reasoning), ("answer", answer)):
            if any(tag in part for tag in self.tags):
                raise ValueError(f"The {name} of a demonstration contains a tag of the grammar: {part[:80]!r}.")
        answered = f"{reasoning}{self.open_answer}{answer}{self.close_answer}"
        return Demonstration(perception=self.perception(percept), reasoning=answered)

    def read(self, text: bytes, *, finished: bool = True) -> Response:
        """Parse a response into percept, reasoning and answer, with all faults.

        >>> Grammar().read(b"<perception>AB</perception>So<answer>A1 B2</answer>").answer
        'A1 B2'
        >>> Grammar().read(b"So<answer>A1</answer><answer>A2</answer>").faults
        (<Fault.no_perception: 'no perception is stated'>, <Fault.many_answers: 'more than one answer tag'>)
        """
        faults = [] if finished else [Fault.truncated]
        boundary = self.boundary(text)
        try:
            whole = text.decode()
        except UnicodeDecodeError:
            faults.append(Fault.not_text)
            return Response(percept=None, reasoning="", answer=None, faults=tuple(faults), boundary=boundary)
        percept, perception_faults = self._percept(whole, boundary)
        answer, answer_faults = self._answer(whole, text[:boundary].decode())
        rest = text[boundary:].decode()
        reasoning = rest.split(self.open_answer, 1)[0] if answer is not None else rest
        return Response(
            percept=percept,
            reasoning=reasoning,
            answer=answer if finished else None,
            faults=(*faults, *perception_faults, *answer_faults),
            boundary=boundary,
        )

    def boundary(self, text: bytes) -> int:
        """Length in bytes of the perception span: 0 if the response does not start with one, the whole length if it is not closed."""
        if not text.lstrip().startswith(self.open_perception.encode()):
            return 0
        closing = self.close_perception.encode()
        end = text.find(closing)
        return len(text) if end < 0 else end + len(closing)

    def _percept(self, whole: str, boundary: int) -> tuple[str | None, list[Fault]]:
        opened, closed = whole.count(self.open_perception), whole.count(self.close_perception)
        if opened == closed == 0:
            return None, [Fault.no_perception]
        if opened > 1 or closed > 1:
            return None, [Fault.many_perceptions]
        if not boundary:  # `boundary` works on bytes, which have fewer kinds of white space than text; token labels must agree with it.
            return None, [Fault.perception_not_first]
        if not closed:
            return None, [Fault.perception_not_closed]
        inside = whole.split(self.open_perception, 1)[1].split(self.close_perception, 1)[0]
        return inside, []

    def _answer(self, whole: str, perception: str) -> tuple[str | None, list[Fault]]:
        opened, closed = whole.count(self.open_answer), whole.count(self.close_answer)
        if opened == closed == 0:
            return None, [Fault.no_answer]
        if opened > 1 or closed > 1:
            return None, [Fault.many_answers]
        if self.open_answer in perception:  # Of a perception that is never closed, that is the fault.
            return None, [Fault.answer_in_perception] if self.close_perception in perception else []
        before, _, after = whole.partition(self.open_answer)
        if not opened or self.close_answer in before:
            return None, [Fault.no_answer]
        if not closed:
            return None, [Fault.answer_not_closed]
        inside, _, tail = after.partition(self.close_answer)
        if tail.strip():
            return None, [Fault.text_after_answer]
        return inside, []
