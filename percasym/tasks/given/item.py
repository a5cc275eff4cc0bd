"""Parse one row of collected data into a picture, a question, a percept, reasoning and an answer.

Whatever its columns are, a row becomes one response in the grammar and is parsed as a model's completion would be, so every training
target can also be graded. The header of an image is checked before it is decoded: a small file can expand to gigabytes.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from percasym.spans.grammar import Grammar
from percasym.types import Demonstration

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Accepted encodings. PIL's other decoders are never run on untrusted bytes."""

Record = Mapping[str, Any]
"""The columns of a row by name."""
Source = Path | bytes
"""An image file, or its encoded bytes."""


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

    @property
    def demonstration(self) -> Demonstration:
        """The reference response."""
        return Grammar().demonstrate(self.percept, self.reasoning, self.answer)

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """Everything but the picture."""
        return self.query, self.percept, self.reasoning, self.answer


def from_columns(record: Record, folder: Path, boundary: re.Pattern[str] | None) -> Item:
    """Parse a row with columns image, query and (perception, reasoning, answer), or image, query, response and optionally answer.

    Raises ValueError with the reason when the row is malformed.
    """
    if "response" not in record:
        if boundary:
            raise ValueError(f"it has no response that task.boundary could cut; its columns are {', '.join(record)}.")
        return _item(record, folder, _text(record, "perception"), _text(record, "reasoning"), _text(record, "answer"))
    answer = _text(record, "answer") if "answer" in record else None
    return _item(record, folder, *split_response(_text(record, "response"), boundary, answer))


def from_hub(record: Record, folder: Path, boundary: re.Pattern[str] | None, ground_truth: re.Pattern[str] | None) -> Item:
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


def split_response(response: str, boundary: re.Pattern[str] | None, answer: str | None) -> tuple[str, str, str]:
    """Percept, reasoning and answer of a whole response.

    In an untagged response, the first match of `boundary` separates percept from reasoning and is dropped. An `answer` that the response
    does not tag is appended.

    >>> split_response("Two red. THINK One and one.", re.compile(" ?THINK"), "2")
    ('Two red.', ' One and one.', '2')

    Raises ValueError when the response cannot be parsed, or contradicts `answer`.
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
    if answer is not None and not same_words(answer, read.answer):
        raise ValueError(f"its answer is {answer[:40]!r}, and its response says {read.answer[:40]!r}.")
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


def image_source(value: object, folder: Path) -> Source:
    """Resolve the `image` column: a path relative to `folder`, base64 (a data URI or bare), encoded bytes, or a {bytes, path} mapping.

    A string without a dot is base64, whose alphabet has none; any other string is a path.

    >>> image_source("images/7.png", Path("data")).as_posix(), image_source("aGk=", Path("data"))
    ('data/images/7.png', b'hi')

    Raises ValueError for anything else.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"its image must be a path or base64, got {value!r:.80}.")
    if not value.startswith("data:") and "." in value:
        return folder / Path(value).expanduser()
    try:
        return base64.b64decode(value.partition(",")[2] if value.startswith("data:") else value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its image is neither a path (no dot in it) nor base64 ({error}): {value[:40]!r}.") from None


def read_image(source: Source, *, max_pixels: int, max_bytes: int) -> bytes:
    """Read and decode an image once, and return it as PNG bytes: PNG files unchanged, other formats re-encoded in RGB.

    Raises ValueError when the image is missing, exceeds a limit, or cannot be decoded completely.
    """
    try:
        if isinstance(source, Path) and source.stat().st_size > max_bytes:
            raise ValueError(f"its image {source} has {source.stat().st_size:,} bytes, and task.max_bytes={max_bytes}.")
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise ValueError(f"its image {source!s} cannot be read ({error.strerror}).") from None
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise TooManyPixelsError(f"its image has {width} x {height} pixels, and task.max_pixels={max_pixels}.")
            image.load()
            if image.format == "PNG":
                return data
            out = io.BytesIO()
            image.convert("RGB").save(out, "PNG")
            return out.getvalue()
    except TooManyPixelsError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # PIL's own limit, raised while it reads the header.
        raise TooManyPixelsError(f"its image has more pixels than PIL decodes, and task.max_pixels={max_pixels}.") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # What PIL's decoders raise for broken files.
        shown = source if isinstance(source, Path) else f"of {len(data):,} bytes"
        raise ValueError(f"its image {shown} is no whole picture of {', '.join(FORMATS)} ({error}).") from None


class TooManyPixelsError(ValueError):
    """An image larger than the limit."""


def _truth(value: object, pattern: re.Pattern[str] | None) -> tuple[str | None, str]:
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
    groups = found.groupdict()
    return groups.get("percept"), groups.get("answer") or text


def _item(record: Record, folder: Path, percept: str, reasoning: str, answer: str) -> Item:
    query = _text(record, "query")
    for name, text in (("query", query), ("perception", percept), ("answer", answer)):
        if not text.strip():
            raise ValueError(f"its {name} is empty.")
    if "image" not in record:
        raise ValueError(f"it has no column image; its columns are {', '.join(record)}.")
    picture = image_source(record["image"], folder)
    item = Item(picture=picture, query=query, percept=tidy(percept), reasoning=reasoning, answer=answer)
    assert item.demonstration, "raises ValueError for a text that contains a tag"
    return item


def _text(record: Record, column: str) -> str:
    if column not in record:
        raise ValueError(f"it has no column {column}; its columns are {', '.join(record)}.")
    value = record[column]
    if not isinstance(value, str):
        raise ValueError(f"its {column} must be text, got {value!r:.60}.")
    return value
