"""Cards of the report page: pictures in their own proportions and of a bounded size, marks in texts."""

from __future__ import annotations

import io
from base64 import b64decode, b64encode

import pytest
from PIL import Image

from percasym.report.cards import CATEGORIES, MAX_WORDS, Card, CardGallery, Picture, page_picture, word_marks
from percasym.report.html import render


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
