"""The graded responses on the report page: samples as a model answered them, sorted by whether perception or reasoning is wrong.

Perception is right when the stated percept is p*; reasoning is right when the answer is right for the percept that was stated (faithful).
Where nothing is known to follow from a wrong percept, as in collected data, the same model's answer given p* grades its reasoning.

Departures from p* are marked as far as the two texts show them, for reports import no task: rows of digits are the cells of a square
picture (a Sudoku fills its picture); an edge list names its nodes, but not their places; of any other percept only words are compared.
"""

from __future__ import annotations

import io
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from rapidfuzz.distance import LCSseq

from percasym.report.load import last_evaluation, read_samples
from percasym.report.study import Cell, CellGroup, seed_of

CATEGORIES: Mapping[str, str] = {
    "neither": "Perception right, reasoning right",
    "perception": "Perception wrong, reasoning right",
    "reasoning": "Perception right, reasoning wrong",
    "both": "Perception wrong, reasoning wrong",
    "format": "Not in the required form",
    "unknown": "Perception wrong, reasoning not measured",
}
"""What is wrong with a response, and its name. One with a format fault (two answers, no perception, the token limit) is in that class
alone; the last is for wrong percepts of samples whose a_r was not measured."""
MAX_CARDS = 384
"""Of one page, shared evenly by its cells: about 2 MB of text."""
CARDS_OF_A_CELL = (4, 64)
"""Minimum and maximum; the first 64 samples of an evaluation are those that keep their picture."""
SIDE = 100
"""Longer side of every picture, in the units of its SVG."""
MAX_PIXELS_A_SIDE = 512
"""Of a picture in the page: twice the size of a card's; a photograph of 12 megapixels would be larger than the rest of the page."""
QUALITY = 85
"""Of the JPEG that replaces a larger picture."""
MAX_WORDS = 1000
"""Of a text whose words are compared: the comparison is quadratic."""
_ROW = re.compile(r"[0-9]+")
_GRAPH = re.compile(r"([0-9]{1,2}):((?: [A-Z][A-Z])*)")

Pieces = Sequence[tuple[str, bool]]
"""A text in pieces, each with whether it departs from p*."""


MAX_DECODED_PIXELS = 2**24
"""Of one picture (as `task.max_pixels`): a file of 27 kB can expand to a gigabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The picture of a sample. It is in the page once, however many cells answered it."""

    name: str
    uri: str
    width: float
    height: float
    """In units of the SVG; the longer one is `SIDE`."""
    is_small: bool
    """Whether it is shown enlarged, with its pixels kept sharp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongCell:
    """A cell whose stated digit is wrong; rows and columns are counted from 0."""

    row: int
    column: int
    truth: str
    stated: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GridMarks:
    """The wrong cells of a square grid."""

    size: int
    wrong: tuple[WrongCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphMarks:
    """Edges of the true and the stated graph; each is two letters in alphabetical order."""

    nodes: str
    """Letters of all nodes that either text has."""
    right: tuple[str, ...]
    missing: tuple[str, ...]
    invented: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One response."""

    cell: str
    """Id of its cell in the page."""
    category: str
    """A key of `CATEGORIES`."""
    title: str
    picture: Picture | None
    label: str
    """Of the picture, for a screen reader."""
    frames: Sequence[Mapping[str, Any]]
    """Marks on the picture: the square (x, y, side) of each wrong cell, and the stated digit (text) in a corner (tag_x, tag_y, tag)."""
    graph: Mapping[str, Any] | None
    """Where edges are wrong: nodes (letter, x, y), edges (kind, x1, y1, x2, y2) and a caption."""
    facts: Sequence[tuple[str, Pieces]]
    reasoning: str
    text: str | None = None
    """The whole response where it is not in the required form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardGallery:
    """All cards of the page."""

    cells: Sequence[tuple[str, str]]
    """Id and name of each cell."""
    pictures: Sequence[Picture]
    cards: Sequence[Card]


def card_gallery(groups: Sequence[CellGroup]) -> CardGallery | None:
    """The first samples of the last evaluation of each cell's first seed; None where no run kept an evaluation.

    Raises ValueError when a record is not as a run writes it.
    """
    cells = [cell for group in groups for cell in group.cells]
    files = [(cell, file) for cell in cells if (file := last_evaluation(cell.runs[0].path)) is not None]
    try:
        return _gallery(files) if files else None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError, SyntaxError) as error:
        names = ", ".join(str(file) for _, file in files[:3])
        raise ValueError(f"The responses in {names} cannot be shown ({type(error).__name__}: {' '.join(str(error).split())}).") from error


def category(grades: Mapping[str, bool | float | None], faults: Sequence[str] = ()) -> str:
    """The key in `CATEGORIES` of a response.

    >>> category({"perception": False, "faithful": True}), category({"perception": False, "faithful": None, "reasoning": False})
    ('perception', 'both')
    >>> category({"perception": True, "faithful": False}, ["truncated"])
    'format'
    """
    if faults:
        return "format"
    if grades["perception"]:
        return "neither" if grades["faithful"] else "reasoning"
    right = grades.get("reasoning") if grades["faithful"] is None else grades["faithful"]
    if right is None:
        return "unknown"
    return "perception" if right else "both"


def marks(task: str, truth: str, stated: str | None) -> GridMarks | GraphMarks | None:
    """The departures of a Sudoku or a graph; None for any other task, and where a text is not of its form.

    >>> marks("sudoku", "10\\n02", "10\\n32").wrong
    (WrongCell(row=1, column=0, truth='0', stated='3'),)
    >>> found = marks("graph_coloring", "3: AB BC", "3: AB AC")
    >>> found.right, found.missing, found.invented
    (('AB',), ('BC',), ('AC',))
    """
    if stated is None:
        return None
    if task == "sudoku":
        return _grid(truth.strip().split("\n"), stated.strip().split("\n"))
    return _graph(truth, stated) if task == "graph_coloring" else None


def word_marks(truth: str, stated: str) -> Pieces:
    """The words of `stated` and the white space between them; a word is marked unless both texts share it, in order.

    >>> word_marks("2 red, 1 blue", "2 red, 3 blue")
    [('2', False), (' ', False), ('red,', False), (' ', False), ('3', True), (' ', False), ('blue', False)]
    """
    pieces = re.split(r"(\s+)", stated)  # Words at even places.
    words, wanted = pieces[::2], truth.split()
    if max(len(words), len(wanted)) > MAX_WORDS:
        return [(stated, False)]
    blocks = LCSseq.opcodes(wanted, words)  # In bits: a thousand words in a millisecond, however often they repeat.
    shared = {place for block in blocks if block.tag == "equal" for place in range(block.dest_start, block.dest_end)}
    return [(piece, place % 2 == 0 and piece != "" and place // 2 not in shared) for place, piece in enumerate(pieces)]


def page_picture(name: str, data: str) -> Picture:
    """The picture of a record (`data` is base64 of a PNG) in its own proportions; a large one becomes a smaller JPEG."""
    width, height = (int.from_bytes(b64decode(data[:32])[at : at + 4], "big") for at in (16, 20))  # Of the first chunk of a PNG.
    if not 0 < width * height <= MAX_DECODED_PIXELS:
        raise ValueError(f"its picture has {width} x {height} pixels, and 1 to {MAX_DECODED_PIXELS:,} are drawn.")
    longer = max(width, height)
    small = longer <= MAX_PIXELS_A_SIDE
    uri = f"data:image/png;base64,{data}" if small else _shrunk(data)
    return Picture(name=name, uri=uri, width=SIDE * width / longer, height=SIDE * height / longer, is_small=small)


def _gallery(files: Sequence[tuple[Cell, Path]]) -> CardGallery:
    least, most = CARDS_OF_A_CELL
    num_cards = max(least, min(most, MAX_CARDS // len(files)))
    shown = [read_samples(file, num_cards) for _, file in files]
    images = {_id(record): record["image"] for records in shown for record in records if record.get("image")}
    pictures = {name: page_picture(name, data) for name, data in images.items()}
    return CardGallery(
        cells=[(f"c{place}", f"{cell.name} (seed {seed_of(cell.runs[0])})") for place, (cell, _) in enumerate(files)],
        pictures=list(pictures.values()),
        cards=[_card(record, f"c{place}", pictures.get(_id(record))) for place, records in enumerate(shown) for record in records],
    )


def _id(record: Mapping[str, Any]) -> str:
    key = record["key"]
    return "-".join(str(key[part]) for part in ("task", "split", "seed", "index"))


def _card(record: Mapping[str, Any], cell: str, picture: Picture | None) -> Card:
    key, response, faults = record["key"], record["responses"]["image"], record["faults"]["image"]
    found = marks(key["task"], record["truth"], response["percept"])
    return Card(
        cell=cell,
        category=category(record["grades"], faults),
        title=f"{key['task']} {key['split']} {key['index']}",
        picture=picture,
        label=f"picture of sample {key['index']}",
        frames=[_frame(found.size, wrong) for wrong in found.wrong] if isinstance(found, GridMarks) else [],
        graph=_drawn_graph(found) if isinstance(found, GraphMarks) and (found.missing or found.invented) else None,
        facts=list(_facts(record, response, found)),
        reasoning=response["reasoning"].strip(),
        text=_whole(response) if faults else None,
    )


def _whole(response: Mapping[str, Any]) -> str:
    """A response that is not in the required form, as the model wrote it; earlier revisions kept its parts only."""
    if (text := response.get("text")) is not None:
        return str(text)
    parts = (f"{name}: {response[name]}" for name in ("percept", "reasoning", "answer") if response[name])
    return "\n".join(["(This run kept only what could be parsed.)", *parts])


def _facts(record: Mapping[str, Any], response: Mapping[str, Any], found: GridMarks | GraphMarks | None) -> Sequence[tuple[str, Pieces]]:
    faults = ", ".join(record["faults"]["image"]).replace("_", " ")
    answer = "right" if record["grades"]["end_to_end"] else "not counted" if faults else "wrong"
    texts = (
        ("question", record.get("question")),  # Records of percasym 0.1 have none.
        ("p*", record["truth"]),
        ("stated", "none" if response["percept"] is None else None),
        (f"answer ({answer})", response["answer"] or "none"),
        ("a right answer", None if answer == "right" else record.get("solution")),
        ("faults", faults or None),
    )
    facts: list[tuple[str, Pieces]] = []
    for term, text in texts:
        if text is not None:
            facts.append((term, [(text, False)]))
        elif term == "stated":
            facts.append((term, _stated(response["percept"], record["truth"], found)))
    return facts


def _stated(text: str, truth: str, found: GridMarks | GraphMarks | None) -> Pieces:
    """The stated percept, with its departures marked."""
    if isinstance(found, GridMarks):
        wrong = {(cell.row, cell.column) for cell in found.wrong}
        rows = (f"{row}\n" for row in text.strip().split("\n"))
        return [(sign, (i, j) in wrong) for i, row in enumerate(rows) for j, sign in enumerate(row)][:-1]
    if isinstance(found, GraphMarks):
        words = text.split()
        return [piece for word in words for piece in ((word, "".join(sorted(word)) in found.invented), (" ", False))][:-1]
    return word_marks(truth, text)


def _grid(truth: list[str], stated: list[str]) -> GridMarks | None:
    size = len(truth)
    if len(stated) != size or any(len(row) != size or not _ROW.fullmatch(row) for row in (*truth, *stated)):
        return None
    places = [(row, column) for row in range(size) for column in range(size) if truth[row][column] != stated[row][column]]
    wrong = tuple(WrongCell(row=row, column=column, truth=truth[row][column], stated=stated[row][column]) for row, column in places)
    return GridMarks(size=size, wrong=wrong)


def _graph(truth: str, stated: str) -> GraphMarks | None:
    read = [_GRAPH.fullmatch(text.strip()) for text in (truth, stated)]
    if not read[0] or not read[1]:
        return None
    true, claimed = ({"".join(sorted(edge)) for edge in match[2].split()} for match in read if match)
    named = {letter for edge in true | claimed for letter in edge}
    count = max(int(match[1]) for match in read if match)
    return GraphMarks(
        nodes="".join(sorted(named | set(ascii_uppercase[:count]))),
        right=tuple(sorted(true & claimed)),
        missing=tuple(sorted(true - claimed)),
        invented=tuple(sorted(claimed - true)),
    )


def _frame(size: int, cell: WrongCell) -> Mapping[str, Any]:
    """Square and corner of a wrong cell, in units of the SVG."""
    side = SIDE / size
    inset, tag = side * 0.05, side * 0.46
    x, y = cell.column * side, cell.row * side
    return {
        "x": x + inset, "y": y + inset, "side": side - 2 * inset,
        "tag_x": x + side - inset - tag, "tag_y": y + side - inset - tag, "tag": tag,
        "text": "·" if cell.stated == "0" else cell.stated,
    }  # fmt: skip


def _drawn_graph(found: GraphMarks) -> Mapping[str, Any]:
    """Both edge sets on a circle of letters: right, missing (dashed) and invented (thick)."""
    count, radius = len(found.nodes), SIDE / 2 - 10
    angles = [2 * math.pi * i / count for i in range(count)]
    at = {node: (SIDE / 2 + radius * math.sin(a), SIDE / 2 - radius * math.cos(a)) for node, a in zip(found.nodes, angles, strict=True)}
    kinds = (("right", found.right), ("missing", found.missing), ("invented", found.invented))
    words = [
        f"{word} {' '.join(edges)}"
        for word, edges in (("missing (dashed):", found.missing), ("invented (thick):", found.invented))
        if edges
    ]
    return {
        "nodes": [(node, *place) for node, place in at.items()],
        "edges": [(kind, *at[edge[0]], *at[edge[1]]) for kind, edges in kinds for edge in edges],
        "label": f"{len(found.missing)} edges missing, {len(found.invented)} invented",
        "caption": f"{'; '.join(words)}. The nodes are drawn on a circle, not at their places in the picture.",
    }


def _shrunk(data: str) -> str:
    from PIL import Image  # Needed for large pictures only.

    with Image.open(io.BytesIO(b64decode(data)), formats=("PNG",)) as image:
        small = image.convert("RGB")
    small.thumbnail((MAX_PIXELS_A_SIDE, MAX_PIXELS_A_SIDE))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{b64encode(out.getvalue()).decode('ascii')}"
