"""Cards of the report page: pictures in their own proportions and of a bounded size, marks in texts."""

from __future__ import annotations

import io
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from percasym.report.cards import CATEGORIES, MAX_WORDS, Card, CardGallery, Picture, card_gallery, page_picture, word_marks
from percasym.report.html import render
from percasym.report.load import last_evaluation, load_runs
from percasym.report.study import study_of


def encoded(width: int, height: int) -> str:
    out = io.BytesIO()
    Image.effect_noise((width, height), 60).save(out, "PNG")
    return b64encode(out.getvalue()).decode()


def page_of(picture: Picture) -> str:
    card = Card(cell="c0", category="neither", title="", picture=picture, label="", frames=(), graph=None, facts=(), reasoning="")
    return render("cards.html.j2", gallery=CardGallery(cells=(), pictures=(picture,), cards=(card,)), categories=CATEGORIES)


def test_a_small_picture_stays_as_it_is_and_keeps_its_proportions() -> None:
    data = encoded(80, 64)
    one = page_picture("a", data)
    # The longer side is 100 units, so that the other is 100 * 64 / 80 = 80.
    assert (one.width, one.height, one.uri) == (100, 80, f"data:image/png;base64,{data}")
    html = page_of(one)
    assert '<svg class="picture pixels" viewBox="0 0 100 80"' in html
    assert 'width="100" height="80"' in html


def test_a_photograph_becomes_a_jpeg_of_the_size_of_a_page() -> None:
    one = page_picture("a", encoded(600, 1200))
    assert one.uri.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(b64decode(one.uri.partition(",")[2]))) as image:
        assert image.size == (256, 512)
    assert (one.width, one.height) == (50, 100)
    assert '<svg class="picture" viewBox="0 0 50 100"' in page_of(one), "it is not enlarged pixel by pixel"


@pytest.mark.parametrize("stated", ["", "  ", "2 red,\n 3 blue "])
def test_marks_change_no_letter_of_what_was_stated(stated: str) -> None:
    assert "".join(piece for piece, _ in word_marks("2 red, 1 blue", stated)) == stated
    assert [piece for piece, wrong in word_marks("2 red, 1 blue", stated) if wrong] == (["3"] if "3" in stated else [])


def test_a_text_too_long_to_compare_is_not_marked() -> None:
    long = "a " * (MAX_WORDS + 1)
    assert word_marks("b", long) == [(long, False)]


def test_a_response_that_did_not_parse_is_a_class_of_its_own_and_is_shown_whole(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    file = last_evaluation(cell_run(tmp_path / "s", "none", 0, 0.5))
    assert file is not None
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record, text in ((records[0], "I see <nothing>"), (records[1], None)):
        record["faults"]["image"] = ["no_perception"]
        record["responses"]["image"] = record["responses"]["image"] | {"percept": None, "answer": None} | ({"text": text} if text else {})
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    gallery = card_gallery(study_of(load_runs(tmp_path), "s").groups)
    assert gallery is not None
    whole, parts, *others = gallery.cards
    assert (whole.category, whole.text) == ("format", "I see <nothing>")
    assert (parts.category, parts.text) == ("format", "(This run kept only what could be parsed.)\nreasoning: r1c2 is 2.")
    assert [(card.category, card.text) for card in others] == [("reasoning", None), ("both", None), ("both", None)]
    html = render("cards.html.j2", gallery=gallery, categories=CATEGORIES)
    assert 'aria-label="the whole response">I see &lt;nothing&gt;</pre>' in html
    assert '<span class="badge fault">Not in the required form</span>' in html


def test_responses_that_cannot_be_shown_are_one_sentence(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    file = last_evaluation(cell_run(tmp_path / "s", "none", 0, 0.5))
    assert file is not None
    groups = study_of(load_runs(tmp_path), "s").groups
    file.write_text('{"key": {}}\n')
    with pytest.raises(ValueError, match=rf"The responses in {file} cannot be shown \(KeyError: "):
        card_gallery(groups)
    file.unlink()
    assert card_gallery(groups) is None


def test_a_graph_is_marked_edge_by_edge_and_drawn_on_a_circle(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    file = last_evaluation(cell_run(tmp_path / "s", "none", 0, 0.5))
    assert file is not None
    record = json.loads(file.read_text().splitlines()[1])
    record["key"]["task"], record["truth"] = "graph_coloring", "3: AB BC"
    record["responses"]["image"]["percept"] = "3: AB AC"
    file.write_text(json.dumps(record) + "\n")
    gallery = card_gallery(study_of(load_runs(tmp_path), "s").groups)
    assert gallery is not None
    (card,) = gallery.cards
    assert card.graph is not None and card.graph["label"] == "1 edges missing, 1 invented"
    assert [(kind, len(rest)) for kind, *rest in card.graph["edges"]] == [("right", 4), ("missing", 4), ("invented", 4)]
    # Three nodes on a circle of radius 40 around (50, 50), the first one on top.
    assert card.graph["nodes"][0] == ("A", 50, 10)
    assert card.graph["caption"].startswith("missing (dashed): BC; invented (thick): AC. The nodes are drawn on a circle")
    html = render("cards.html.j2", gallery=gallery, categories=CATEGORIES)
    assert "missing (dashed): BC" in html and "<mark>AC</mark>" in html and "<mark>AB</mark>" not in html
