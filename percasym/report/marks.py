"""Where a stated percept departs from p*, as far as the two texts tell: cells of a grid, edges of a graph, words of anything else.

A report imports no task, so only what the text forms themselves fix is used: rows of digits lie on a square picture cell by cell
(a Sudoku fills its picture); an edge list names its nodes, but not where they stand; of someone's own percept only words are known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from string import ascii_uppercase

MAX_WORDS = 1000
"""Of a text whose words are compared: the comparison takes the square of it, and nobody reads marks in more."""
_ROW = re.compile(r"[0-9]+")
_GRAPH = re.compile(r"([0-9]{1,2}):((?: [A-Z][A-Z])*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongCell:
    """A cell that was read as something else; rows and columns are counted from 0."""

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
    """Edges of both graphs; each is two letters in alphabetical order."""

    nodes: str
    """Letters of all nodes that either text has."""
    right: tuple[str, ...]
    missing: tuple[str, ...]
    invented: tuple[str, ...]


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


def astray(truth: str, stated: str) -> list[tuple[str, bool]]:
    """The words of `stated` and the white space between them, and whether each is none of those that both texts share, in order.

    >>> astray("2 red, 1 blue", "2 red, 3 blue")
    [('2', False), (' ', False), ('red,', False), (' ', False), ('3', True), (' ', False), ('blue', False)]
    """
    pieces = re.split(r"(\s+)", stated)  # Words at even places.
    words, wanted = pieces[::2], truth.split()
    if max(len(words), len(wanted)) > MAX_WORDS:
        return [(stated, False)]
    blocks = SequenceMatcher(a=wanted, b=words, autojunk=False).get_matching_blocks()
    shared = {block.b + i for block in blocks for i in range(block.size)}
    return [(piece, place % 2 == 0 and piece != "" and place // 2 not in shared) for place, piece in enumerate(pieces)]


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
    true, said = ({"".join(sorted(edge)) for edge in match[2].split()} for match in read if match)
    named = {letter for edge in true | said for letter in edge}
    count = max(int(match[1]) for match in read if match)
    return GraphMarks(
        nodes="".join(sorted(named | set(ascii_uppercase[:count]))),
        right=tuple(sorted(true & said)),
        missing=tuple(sorted(true - said)),
        invented=tuple(sorted(said - true)),
    )
