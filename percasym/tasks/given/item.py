"""One row of someone's data as what training needs: a picture, a question, a percept, thoughts, an answer.

Whatever the columns are, a row becomes one response in the house's grammar and is read as a model's own would be, so what is trained on
is what can be graded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from percasym.spans.grammar import Grammar
from percasym.tasks.given.likeness import same, tidy
from percasym.tasks.given.picture import Source, source_of
from percasym.types import Demonstration

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row, read."""

    picture: Source
    query: str
    percept: str
    """p*, canonical."""
    thoughts: str
    answer: str
    content: str = ""
    """A digest of picture and question, once the picture was read."""

    @property
    def demonstration(self) -> Demonstration:
        """The reference response."""
        return Grammar().demonstrate(self.percept, self.thoughts, self.answer)

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """All but the picture."""
        return self.query, self.percept, self.thoughts, self.answer


def from_columns(record: Record, folder: Path, boundary: re.Pattern[str] | None) -> Item:
    """A row with columns image, query and (perception, reasoning, answer), or image, query, response and perhaps answer.

    Raises ValueError, which says what is wrong with the row.
    """
    if "response" not in record:
        if boundary:
            raise ValueError(f"it has no response that task.boundary could cut; its columns are {', '.join(record)}.")
        return _item(record, folder, _text(record, "perception"), _text(record, "reasoning"), _text(record, "answer"))
    answer = _text(record, "answer") if "answer" in record else None
    return _item(record, folder, *in_spans(_text(record, "response"), boundary, answer))


def from_hub(record: Record, folder: Path, boundary: re.Pattern[str] | None, ground_truth: re.Pattern[str] | None) -> Item:
    """A row of the paper's released sets: image, query, ground_truth, and a response that is empty where nothing is imitated.

    p* is that of the response; where that is empty, what `ground_truth` says. The pattern `ground_truth` names a group `answer`, a group
    `percept`, or both; without it, a tagged ground truth is read by its tags, and any other is the answer.

    Raises ValueError, which says what is wrong with the row.
    """
    percept, answer = _truth(record.get("ground_truth"), ground_truth)
    response = "" if record.get("response") is None else _text(record, "response")
    if response.strip():
        return _item(record, folder, *in_spans(response, boundary, answer))
    if percept is None:
        raise ValueError("its response is empty and its ground_truth names no percept. Set task.ground_truth=REGEX with a group percept.")
    return _item(record, folder, percept, "", answer)


def in_spans(response: str, boundary: re.Pattern[str] | None, answer: str | None) -> tuple[str, str, str]:
    """Percept, thoughts and answer of a whole response.

    `boundary` separates the first two where there are no tags, and is dropped; an `answer` that is not tagged in the response is added.

    >>> in_spans("Two red. THINK One and one.", re.compile(" ?THINK"), "2")
    ('Two red.', ' One and one.', '2')

    Raises ValueError.
    """
    tags = Grammar()
    if boundary:
        found = boundary.search(response)
        if not found:
            raise ValueError(f"task.boundary={boundary.pattern!r} matches nothing in its response: {response[:60]!r}.")
        response = tags.perception(response[: found.start()]) + response[found.end() :]
    if answer is not None and tags.open_answer not in response:
        response = f"{response}{tags.open_answer}{answer}{tags.close_answer}"
    read = tags.read(response.encode())
    if read.percept is None or read.answer is None or read.faults:
        advice = "Tag it, or set task.boundary." if boundary is None else "Look at task.boundary and the answer."
        raise ValueError(f"its response cannot be read: {'; '.join(read.faults)}. {advice}")
    if answer is not None and not same(answer, read.answer):
        raise ValueError(f"its answer is {answer[:40]!r}, and its response says {read.answer[:40]!r}.")
    return read.percept, read.reasoning, read.answer


def _truth(value: object, pattern: re.Pattern[str] | None) -> tuple[str | None, str]:
    """p* (None where it is not said) and the answer of a ground truth."""
    if value is None or value == "":
        raise ValueError("its ground_truth is empty.")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if pattern is None:
        read = Grammar().read(text.encode())
        return (None, text) if read.percept is None or read.answer is None else (read.percept, read.answer)
    found = pattern.search(text)
    if not found:
        raise ValueError(f"task.ground_truth={pattern.pattern!r} matches nothing in its ground_truth: {text[:60]!r}.")
    groups = found.groupdict()
    return groups.get("percept"), groups.get("answer") or text


def _item(record: Record, folder: Path, percept: str, thoughts: str, answer: str) -> Item:
    query = _text(record, "query")
    for name, text in (("query", query), ("perception", percept), ("answer", answer)):
        if not text.strip():
            raise ValueError(f"its {name} is empty.")
    if "image" not in record:
        raise ValueError(f"it has no column image; its columns are {', '.join(record)}.")
    picture = source_of(record["image"], folder)
    item = Item(picture=picture, query=query, percept=tidy(percept), thoughts=thoughts, answer=answer)
    assert item.demonstration, "refuses a text that contains a tag"
    return item


def _text(record: Record, column: str) -> str:
    if column not in record:
        raise ValueError(f"it has no column {column}; its columns are {', '.join(record)}.")
    value = record[column]
    if not isinstance(value, str):
        raise ValueError(f"its {column} must be text, got {value!r:.60}.")
    return value
