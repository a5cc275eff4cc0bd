"""The gallery of a study: samples as a model answered them, sorted by what went wrong, seeing or thinking.

A response saw well when its percept is p*, and reasoned well when its answer is right for the percept that it stated (faithful). Where
nobody can tell what follows from a wrong percept, as in collected data, the answer that the same model gave to p* says how it reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from percasym.report.marks import GraphMarks, GridMarks, astray, marks
from percasym.report.pictures import Kept, graph, kept, picture, shelf
from percasym.report.study import Cell, CellGroup, seed_of
from percasym.report.verdicts import last_evaluation, records

KINDS: Mapping[str, str] = {
    "neither": "Saw well, reasoned well",
    "seeing": "Saw wrongly, reasoned well",
    "thinking": "Saw well, reasoned wrongly",
    "both": "Saw wrongly, reasoned wrongly",
    "unjudged": "Saw wrongly, reasoning cannot be judged",
}
"""What went wrong, and its name; the last is for wrong percepts of which nothing is known to follow, where a_r was not measured."""
MAX_CARDS = 384
"""In one page, shared evenly by its cells: about 2 MB of text."""
CARDS_OF_A_CELL = (4, 64)
"""Least and most; the first 64 samples of an evaluation are those that keep their picture."""


def kind(grades: Mapping[str, bool | float | None]) -> str:
    """Which of `KINDS` a response is.

    >>> kind({"perception": False, "faithful": True}), kind({"perception": False, "faithful": None, "reasoning": False})
    ('seeing', 'both')
    """
    if grades["perception"]:
        return "neither" if grades["faithful"] else "thinking"
    reasoned = grades.get("reasoning") if grades["faithful"] is None else grades["faithful"]
    if reasoned is None:
        return "unjudged"
    return "seeing" if reasoned else "both"


def gallery(groups: Sequence[CellGroup]) -> str:
    """The filter, the pictures and the cards of all cells; empty where no run kept an evaluation."""
    cells = [cell for group in groups for cell in group.cells if _file(cell) is not None]
    if not cells:
        return ""
    least, most = CARDS_OF_A_CELL
    num_cards = max(least, min(most, MAX_CARDS // len(cells)))
    shown = {cell.name: records(file, num_cards) for cell in cells if (file := _file(cell)) is not None}
    images = {_id(record): record["image"] for of_cell in shown.values() for record in of_cell if record.get("image")}
    pictures = {name: kept(name, data) for name, data in images.items()}
    cards = [_card(record, f"c{place}", pictures.get(_id(record))) for place, of_cell in enumerate(shown.values()) for record in of_cell]
    listed = "\n".join(cards)
    return f'{_form(cells)}\n<p id="shown" role="status"></p>\n{shelf(pictures.values())}\n<div id="cards">\n{listed}\n</div>'


def _file(cell: Cell) -> Any:
    """The last evaluation of the cell's first seed."""
    return last_evaluation(cell.runs[0].path)


def _form(cells: Sequence[Cell]) -> str:
    options = "".join(
        f'<option value="c{place}">{escape(cell.name)} (seed {seed_of(cell.runs[0])})</option>' for place, cell in enumerate(cells)
    )
    choices = "".join(
        f'<label><input type="radio" name="kind" value="{value}"{" checked" if value == "all" else ""}>'
        f'<span>{escape(text)} <b data-count="{value}"></b></span></label>'
        for value, text in {"all": "All", **KINDS}.items()
    )
    return (
        f'<form id="filter"><label class="cell">Cell <select name="cell">{options}</select></label>'
        f"<fieldset><legend>What went wrong</legend>{choices}</fieldset></form>"
    )


def _id(record: Mapping[str, Any]) -> str:
    key = record["key"]
    return "-".join(str(key[part]) for part in ("task", "split", "seed", "index"))


def _card(record: Mapping[str, Any], cell: str, image: Kept | None) -> str:
    key, said, what = record["key"], record["responses"]["image"], kind(record["grades"])
    found = marks(key["task"], record["truth"], said["percept"])
    name = escape(f"{key['task']} {key['split']} {key['index']}")
    shown = picture(image, f"picture of sample {key['index']}", found) if image else "<p>This run kept no picture.</p>"
    drawn = _edges(found) if isinstance(found, GraphMarks) and (found.missing or found.invented) else ""
    faults = ", ".join(record["faults"]["image"])
    answer = "right" if record["grades"]["end_to_end"] else "not counted" if faults else "wrong"
    facts = (
        *((("question", escape(record["question"])),) if "question" in record else ()),  # Records of percasym 0.1 have none.
        ("p*", escape(record["truth"])),
        ("stated", "none" if said["percept"] is None else _stated(said["percept"], record["truth"], found)),
        (f"answer ({answer})", escape(said["answer"] or "none")),
        *((("a right answer", escape(record["solution"])),) if answer != "right" and "solution" in record else ()),
        *((("faults", escape(faults.replace("_", " "))),) if faults else ()),
    )
    listed = "".join(f"<div><dt>{term}</dt><dd><pre>{text}</pre></dd></div>" for term, text in facts)
    return (
        f'<article data-cell="{cell}" data-kind="{what}"><h3>{name} <span class="kind {what}">{KINDS[what]}</span></h3>'
        f'<div class="seen">{shown}{drawn}<dl>{listed}</dl></div>'
        f'<pre class="reasoning" tabindex="0" aria-label="reasoning">{escape(said["reasoning"].strip()) or "no reasoning"}</pre></article>'
    )


def _stated(text: str, truth: str, found: GridMarks | GraphMarks | None) -> str:
    """The stated percept with what is wrong in it marked."""
    if isinstance(found, GridMarks):
        wrong = {(cell.row, cell.column) for cell in found.wrong}
        lines = text.strip().split("\n")
        return "\n".join("".join(_mark(sign, (i, j) in wrong) for j, sign in enumerate(line)) for i, line in enumerate(lines))
    if isinstance(found, GraphMarks):
        return " ".join(_mark(word, "".join(sorted(word)) in found.invented) for word in text.split())
    return "".join(_mark(piece, wrong) for piece, wrong in astray(truth, text))


def _mark(text: str, wrong: bool) -> str:
    return f"<mark>{escape(text)}</mark>" if wrong else escape(text)


def _edges(found: GraphMarks) -> str:
    """The missing and invented edges, drawn and in words."""
    said = [
        f"{word} {' '.join(edges)}"
        for word, edges in (("missing (dashed):", found.missing), ("invented (thick):", found.invented))
        if edges
    ]
    told = f"{'; '.join(said)}. Nodes stand on a circle here, wherever the picture has them."
    return f'<figure class="edges">{graph(found)}<figcaption>{told}</figcaption></figure>'
