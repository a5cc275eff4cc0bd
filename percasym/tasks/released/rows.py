"""Rows of the paper's released sets as puzzles: which column is p* and which the solution is decided by checking each row.

A row has image, query, ground_truth and a response that is empty outside train_sft. p* is the first unsolved puzzle among ground_truth,
response and query; the solution is the answer in ground_truth or at the end of the response, which must solve p*, or is computed. Pictures
are left encoded, and those of the package `datasets` unread, until a sample needs them: 20,500 rows are checked in seconds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from percasym.config.escaping import counted
from percasym.spans.grammar import Grammar
from percasym.tasks.base import RowCheck
from percasym.tasks.given.files import Record, Row, json_lines, line_at
from percasym.tasks.given.item import Item
from percasym.tasks.given.messages import refuse_tags, without_image_tag
from percasym.tasks.given.picture import image_source, is_encoded
from percasym.tasks.given.rows import SPLITS, OfflineTable, _load_dataset
from percasym.tasks.released.found import Notation

TAGS_AT_START = re.compile(r"\A\s*</(?:perception|think)>")
TAGS_AT_END = re.compile(r"(?:<answer>|\\boxed\{)\s*\Z")
TYPICAL_SIZE = (512, 512)
"""Stands for the size of a picture in the check against the model before pictures are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle(Item):
    """A parsed row; p* and solution are canonical."""

    percept_from: str
    """The column in which p* stands."""
    answer_from: str
    """The column in which the solution stands; "solver" where it was computed."""
    answered: bool
    """Whether the row has a response."""
    stated: bool
    """Whether the response states p* itself."""
    stored: Callable[[], object] | None = None
    """Reads the column `image` of a row whose picture was left in its data set."""


def parse_row(record: Record, notation: Notation, *, folder: Path, trained: bool, deferred: bool = False) -> Puzzle:
    """Parse a row; `trained` rows need a response. A record without the column image is one whose picture is read later, and with
    `deferred` so is one that holds its picture as base64.

    Raises ValueError with the reason when its columns state no puzzle, or contradict each other.
    """
    texts = {name: _text(record, name) for name in ("ground_truth", "response", "query")}
    if trained and not texts["response"].strip():
        raise ValueError("its response is empty, and rows of train_sft are trained on.")
    percept_from, percept = _percept(texts, notation)
    answer_from, answer = _answer(texts, percept, notation)
    if "ground_truth" not in (percept_from, answer_from):
        raise ValueError(f"its ground_truth states neither an unsolved puzzle nor an answer to that in its {percept_from}.")
    query, tagged = without_image_tag(texts["query"])
    if not query.strip():
        raise ValueError("its query is empty.")
    reasoning, stated = _reasoning(texts["response"], percept, notation)
    if trained and not reasoning.strip():
        raise ValueError("its response has no reasoning, and rows of train_sft train both perception and reasoning.")
    later = "image" not in record or (deferred and is_encoded(record["image"]))
    for name, text in (("query", query), ("response", reasoning)):
        refuse_tags(name, text)
    puzzle = Puzzle(
        picture=b"" if later else image_source(record["image"], folder),
        query=query,
        percept=percept,
        reasoning=reasoning,
        answer=answer,
        remarks=("image_tag",) * tagged,
        percept_from=percept_from,
        answer_from=answer_from,
        answered=bool(texts["response"].strip()),
        stated=stated,
    )
    assert puzzle.demonstration, "raises ValueError for a text that contains a tag"
    return puzzle


def rows_of(path: str, *, max_bytes: int) -> Iterator[tuple[Row, Callable[[], object]]]:
    """The rows of a folder of <split>.jsonl, or of anything the package `datasets` loads, each with a function that reads its column
    image; the latter without that column.

    Raises ValueError when the path cannot be loaded.
    """
    folder = Path(path).expanduser()
    files = {split: folder / f"{split}.jsonl" for split in SPLITS}
    if any(file.is_file() for file in files.values()):
        for split, file in files.items():
            if file.is_file():
                for row in json_lines(file, max_bytes=max_bytes, split=split):
                    yield row, partial(_image_of_line, file, row.start or 0, row.where, max_bytes)
        return
    for split, rows in _load_dataset(str(folder) if folder.exists() else path).items():
        for number, record in enumerate(rows.remove_columns("image")):
            yield Row(where=f"{path}, {split} row {number}", split=split, raw=record), _reader(rows, number)


def _image_of_line(file: Path, start: int, where: str, max_bytes: int) -> object:
    """The column image of the line that begins at a byte, read again. Raises ValueError when the file has changed since."""
    try:
        return line_at(file, start, max_bytes=max_bytes).record["image"]
    except (ValueError, KeyError):
        raise ValueError(f"{where}: the file has changed since its rows were checked. Start again.") from None


def build(
    rows: Iterable[tuple[Row, Callable[[], object]]],
    parse: Callable[[Record, str], Puzzle],
    notation: Notation,
    *,
    source: str,
    skip: bool,
    check: RowCheck | None = None,
) -> OfflineTable:
    """Parse all rows; `parse` receives a record and its split.

    Raises ValueError with the location of the first bad row, unless `skip`.
    """
    items: dict[str, list[Item]] = {split: [] for split in SPLITS}
    skipped, origins, unstated = list[str](), Counter[tuple[str, str]](), 0
    digest = hashlib.blake2b(digest_size=8)
    for row, stored in rows:
        assert row.split, "rows of a released set have a split"
        try:
            puzzle = parse(row.record, row.split)
            if check is not None:
                check(puzzle.named_texts, TYPICAL_SIZE)
        except ValueError as error:
            if not skip:
                raise ValueError(f"{row.where}: {error} Correct the row, or set task.on_error=skip.") from error
            skipped.append(f"{row.where}: {error}")
            continue
        items[row.split].append(puzzle if puzzle.picture else replace(puzzle, stored=stored))
        origins[puzzle.percept_from, puzzle.answer_from] += 1
        unstated += puzzle.answered and not puzzle.stated
        digest.update("\x1f".join((row.split, *puzzle.texts)).encode())
    if not any(items.values()):
        reason = f" The first of {len(skipped)} that were skipped: {skipped[0]}" if skipped else ""
        raise ValueError(f"{source} has no rows.{reason}")
    notes = [*_origins(origins), *_unstated(unstated), *_leaks(items, notation)]
    return OfflineTable(source=source, items=items, skipped=skipped, fingerprint=digest.hexdigest(), notes=notes)


def _percept(texts: Mapping[str, str], notation: Notation) -> tuple[str, str]:
    """The column of p*, and p*."""
    for name in ("ground_truth", "response", "query"):
        if statements := notation.percepts(texts[name]):
            percept = statements[0].text
            break
    else:
        raise ValueError("none of its ground_truth, response and query states an unsolved puzzle.")
    if not notation.valid(percept) and notation.solve(percept) is None:
        raise ValueError(f"the puzzle in its {name} has no solution.")
    stated = notation.percepts(texts["response"])
    if name == "ground_truth" and stated and stated[0].text != percept:
        raise ValueError("its response states another puzzle than its ground_truth.")
    return name, percept


def _answer(texts: Mapping[str, str], percept: str, notation: Notation) -> tuple[str, str]:
    """The column of the solution, and the solution."""
    chosen: tuple[str, str] | None = None
    for name in ("ground_truth", "response"):
        if statements := notation.answers(texts[name], percept):
            answer = statements[-1].text
            if not notation.verify(percept, answer):
                raise ValueError(f"the answer in its {name} does not solve its puzzle.")
            chosen = chosen or (name, answer)
    if texts["response"].strip() and not notation.answers(texts["response"], percept):
        raise ValueError("its response states no complete answer.")
    if chosen:
        return chosen
    solved = notation.solve(percept)
    assert solved is not None, "a puzzle without a solution was refused"
    return "solver", solved


def _reasoning(response: str, percept: str, notation: Notation) -> tuple[str, bool]:
    """The response between its statement of p* and its last answer, and whether it states p*. What precedes and follows is dropped."""
    if not response.strip():
        return "", False
    start = 0
    stated = [one for one in notation.percepts(response) if one.text == percept]
    if stated:
        start = stated[0].end
    end = notation.answers(response, percept)[-1].start
    if end < start:
        raise ValueError("its response states its answer before its puzzle.")
    between = TAGS_AT_END.sub("", TAGS_AT_START.sub("", response[start:end]))
    tags = Grammar()
    if not stated and between.lstrip().startswith(tags.open_perception):
        raise ValueError("the perception that its response tags is no puzzle.")
    return between, bool(stated)


def _text(record: Record, name: str) -> str:
    """A column as text; null is empty, and a value that is no text is written as JSON."""
    value = record.get(name, "" if name == "response" else None)
    if value is None and name != "response":
        raise ValueError(f"it has no {name}; its columns are {', '.join(record)}.")
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _reader(rows: Sequence[Mapping[str, object]], number: int) -> Callable[[], object]:
    return lambda: rows[number]["image"]


def _origins(origins: Counter[tuple[str, str]]) -> Iterator[str]:
    for (percept, answer), number in origins.most_common():
        solution = "computed" if answer == "solver" else f"in {answer}"
        yield f"{counted(number, 'row')}: p* is the unsolved puzzle in {percept}, the solution is {solution}; any valid solution is right."


def _unstated(number: int) -> list[str]:
    return [f"{counted(number, 'response')} without p*, which was put before the response."] if number else []


def _leaks(items: Mapping[str, Sequence[Item]], notation: Notation) -> list[str]:
    """A warning where puzzles of the test split are trained on."""
    trained = {notation.canonical(item.percept) for split in ("train_sft", "train_rl") for item in items[split]}
    tested = {notation.canonical(item.percept) for item in items["test"]}
    shared = len(tested & trained)
    return [f"Warning: {shared} of {len(tested)} test puzzles are trained on, too."] if shared else []
