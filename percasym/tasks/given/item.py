"""Parse one row of collected data into a picture, a question, a percept, reasoning and an answer.

Whatever its columns are, a row becomes one response in the grammar and is parsed as a model's completion would be, so every training
target can also be graded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import regex

from percasym.spans.grammar import Grammar
from percasym.tasks.given.files import Record
from percasym.tasks.given.messages import columns_of, refuse_tags, without_image_tag
from percasym.tasks.given.patterns import Expression
from percasym.tasks.given.picture import Source, image_source
from percasym.types import Demonstration

REMARKS = {
    "image_tag": ("question", "had a placeholder <image>, or a picture after the text: the picture now stands before the question."),
    "resized": ("row", "had a picture that was resized to task.max_pixels."),
    "system": ("row", "had a system message, which was put before the question."),
}
"""What is done to rows, by the remark of an item: what is counted, and what was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A parsed row."""

    picture: Source
    query: str
    percept: str
    """p*, canonical."""
    reasoning: str
    answer: str
    content: str = ""
    """Digest of picture and question; empty until the picture has been read."""
    picture_digest: str = ""
    """Digest of the pixels alone; empty until the picture has been read."""
    remarks: tuple[str, ...] = ()
    """Keys of `REMARKS`: what was done to the row."""

    @property
    def demonstration(self) -> Demonstration:
        """The reference response."""
        return Grammar().demonstrate(self.percept, self.reasoning, self.answer)

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """Everything but the picture."""
        return self.query, self.percept, self.reasoning, self.answer

    @property
    def named_texts(self) -> Mapping[str, str]:
        """The same by name."""
        return dict(zip(("query", "perception", "reasoning", "answer"), self.texts, strict=True))


def from_columns(record: Record, folder: Path, boundary: Expression | None) -> Item:
    """Parse a row with columns image, query and (perception, reasoning, answer), or image, query, response and optionally answer, or a
    chat row. A column that is null counts as absent; one that stands beside a response must say the same.

    Raises ValueError with the reason when the row is malformed.
    """
    record = columns_of({name: value for name, value in record.items() if value is not None})
    if "response" not in record:
        if boundary:
            raise ValueError(f"it has no response that task.boundary could cut; its columns are {', '.join(record)}.")
        return _item(record, folder, _text(record, "perception"), _text(record, "reasoning"), _number_or_text(record, "answer"))
    answer = _number_or_text(record, "answer") if "answer" in record else None
    percept, reasoning, answer = split_response(_text(record, "response"), boundary, answer)
    for name, part in (("perception", percept), ("reasoning", reasoning)):
        if name in record:
            _require_same(f"its {name}", _text(record, name), part)
    return _item(record, folder, percept, reasoning, answer)


def from_hub(record: Record, folder: Path, boundary: Expression | None, ground_truth: Expression | None) -> Item:
    """Parse a row of the paper's released sets: image, query, ground_truth, and a response that is empty outside the SFT split.

    p* is taken from the response, or from the ground truth when the response is empty. The pattern `ground_truth` has a group `answer`,
    a group `percept`, or both. Without a pattern, a tagged ground truth is parsed by its tags, and any other text is the answer.

    Raises ValueError with the reason when the row is malformed.
    """
    percept, answer = _truth(record.get("ground_truth"), ground_truth)
    response = "" if record.get("response") is None else _text(record, "response")
    if response.strip():
        return _item(record, folder, *split_response(response, boundary, answer))
    if percept is None:
        raise ValueError("its response is empty and its ground_truth names no percept. Set task.ground_truth=REGEX with a group percept.")
    return _item(record, folder, percept, "", answer)


def split_response(response: str, boundary: Expression | None, answer: str | None) -> tuple[str, str, str]:
    """Percept, reasoning and answer of a whole response.

    In an untagged response, the first match of `boundary` separates percept from reasoning and is dropped. A boundary with the groups
    `percept` and `reasoning` (and `answer`) picks the parts out instead, and the rest is dropped. An `answer` that the response does not
    tag is appended.

    >>> from percasym.tasks.given.patterns import compiled
    >>> split_response("Two red. THINK One and one.", compiled("boundary", " ?THINK"), "2")
    ('Two red.', ' One and one.', '2')
    >>> split_response("[2 red] 1 + 1.", compiled("boundary", r"\\[(?P<percept>.*)\\] (?P<reasoning>.*)"), "2")
    ('2 red', '1 + 1.', '2')

    Raises ValueError when the response cannot be parsed, contradicts `answer`, or is cut into one part and nothing.
    """
    tags, whole = Grammar(), response
    if boundary:
        found = boundary.search(response)
        if not found:
            raise ValueError(f"task.boundary={boundary.pattern!r} matches nothing in its response: {response[:60]!r}.")
        response, answer = _cut(response, found, answer)
    if answer is not None and tags.open_answer not in response:
        response = f"{response}{tags.open_answer}{answer}{tags.close_answer}"
    read = tags.read(response.encode())
    if read.percept is None or read.answer is None or read.faults:
        advice = "Tag it, or set task.boundary." if boundary is None else "Look at task.boundary and the answer."
        raise ValueError(f"its response cannot be read: {'; '.join(read.faults)}. {advice}")
    if answer is not None:
        _require_same("its answer", answer, read.answer)
    for name, part in (("perception", read.percept), ("reasoning", read.reasoning)):
        if boundary and not part.strip():
            raise ValueError(f"task.boundary={boundary.pattern!r} leaves no {name} in its response, and both are trained: {whole[:60]!r}.")
    return read.percept, read.reasoning, read.answer


def tidy(text: str) -> str:
    """The canonical form of a free-text percept: lines are kept, runs of white space become one space, empty lines are dropped.

    >>> tidy("  red  2 \\n\\n blue 1\\n")
    'red 2\\nblue 1'
    """
    return "\n".join(words for line in text.splitlines() if (words := " ".join(line.split())))


def same_words(one: str, other: str) -> bool:
    """Whether two answers are equal up to white space.

    >>> same_words("12\\n34 ", "12 34"), same_words("12", "1 2")
    (True, False)
    """
    return one.split() == other.split()


def _require_same(name: str, given: str, stated: str) -> None:
    """Raise ValueError where a column and the response differ in more than white space."""
    if not same_words(given, stated):
        raise ValueError(f"{name} is {given[:40]!r}, and its response says {stated[:40]!r}.")


def _cut(response: str, found: regex.Match[str], answer: str | None) -> tuple[str, str | None]:
    """The response with its percept tagged, and its answer."""
    tags, parts = Grammar(), found.groupdict()
    if "percept" not in parts:
        return tags.perception(response[: found.start()]) + response[found.end() :], answer
    stated = parts.get("answer")
    if stated is None:
        tagged = re.search(re.escape(tags.open_answer) + "(.*?)" + re.escape(tags.close_answer), response, re.DOTALL)
        stated = tagged[1] if tagged else None
    if stated is not None and answer is not None:
        _require_same("its answer", answer, stated)
    kept = tags.perception(parts["percept"] or "") + (parts["reasoning"] or "").partition(tags.open_answer)[0]
    return kept, answer if stated is None else stated


def _truth(value: object, pattern: Expression | None) -> tuple[str | None, str]:
    """p* (None if not stated) and the answer of a ground truth."""
    if value is None or value == "":
        raise ValueError("its ground_truth is empty.")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if pattern is None:
        read = Grammar().read(text.encode())
        return (None, text) if read.percept is None or read.answer is None else (read.percept, read.answer)
    found = pattern.search(text)
    if not found:
        raise ValueError(f"task.ground_truth={pattern.pattern!r} matches nothing in its ground_truth: {text[:60]!r}.")
    groups = {name: part for name, part in found.groupdict().items() if part is not None}
    if empty := [name for name, part in groups.items() if name in ("percept", "answer") and not part.strip()]:
        raise ValueError(f"task.ground_truth={pattern.pattern!r} finds an empty {empty[0]} in its ground_truth: {text[:60]!r}.")
    return groups.get("percept"), groups.get("answer", text)


def _item(record: Record, folder: Path, percept: str, reasoning: str, answer: str) -> Item:
    query, tagged = without_image_tag(_text(record, "query"))
    remarks = ["image_tag"] * tagged
    if "system" in record and (system := _text(record, "system")).strip():
        query, remarks = f"{system}\n{query}", [*remarks, "system"]
    texts = {"query": query, "perception": percept, "reasoning": reasoning, "answer": answer}
    for name, text in texts.items():
        if name != "reasoning" and not text.strip():
            raise ValueError(f"its {name} is empty.")
        refuse_tags(name, text)
    picture = image_source(_picture(record), folder)
    item = Item(picture=picture, query=query, percept=tidy(percept), reasoning=reasoning, answer=answer, remarks=tuple(remarks))
    assert item.demonstration, "raises ValueError for a text that contains a tag"
    return item


def _picture(record: Record) -> object:
    """The column image or images. Raises ValueError when there is none, or both."""
    found = [record[name] for name in ("image", "images") if record.get(name) is not None]
    if len(found) != 1:
        how = "both image and images" if found else "no column image"
        raise ValueError(f"it has {how}; its columns are {', '.join(record)}.")
    return found[0]


def _text(record: Record, column: str) -> str:
    if column not in record:
        raise ValueError(f"it has no column {column}; its columns are {', '.join(record)}.")
    value = record[column]
    if not isinstance(value, str):
        raise ValueError(f"its {column} must be text, got {value!r:.60}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        at = f"{value[error.start]!a} at character {error.start + 1}"
        raise ValueError(f"its {column} holds half of a surrogate pair, {at}, which no encoding can write.") from None
    return value


def _number_or_text(record: Record, column: str) -> str:
    """A text, or a number as text: 6, and 6.0 too, since pandas writes whole numbers so where a column has gaps.

    >>> [_number_or_text({"answer": value}, "answer") for value in (6, 6.0, 2.5, "6")]
    ['6', '6', '2.5', '6']
    """
    value = record.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, float | Decimal) or not math.isfinite(value):
        return _text(record, column)
    return str(int(value)) if value == int(value) else str(value)
