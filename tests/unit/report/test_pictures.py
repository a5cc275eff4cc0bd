"""Anyone's pictures in a page: in their own proportions, and no larger than a page can bear."""

from __future__ import annotations

import io
from base64 import b64decode, b64encode

import pytest
from PIL import Image

from percasym.report.marks import MAX_WORDS, astray
from percasym.report.pictures import kept, picture, shelf


def encoded(width: int, height: int) -> str:
    out = io.BytesIO()
    Image.effect_noise((width, height), 60).save(out, "PNG")
    return b64encode(out.getvalue()).decode()


def test_a_small_picture_stays_as_it_is_and_keeps_its_proportions() -> None:
    data = encoded(80, 64)
    one = kept("a", data)
    # The longer side is 100 units, so that the other is 100 * 64 / 80 = 80.
    assert (one.width, one.height, one.uri) == (100, 80, f"data:image/png;base64,{data}")
    assert 'viewBox="0 0 100 80"' in picture(one, "a picture", None)
    assert 'width="100" height="80"' in shelf([one])


def test_a_photograph_becomes_a_jpeg_of_the_size_of_a_page() -> None:
    one = kept("a", encoded(600, 1200))
    assert one.uri.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(b64decode(one.uri.partition(",")[2]))) as image:
        assert image.size == (256, 512)
    assert (one.width, one.height) == (50, 100)
    assert 'class="picture"' in picture(one, "a picture", None), "it is not enlarged pixel by pixel"


@pytest.mark.parametrize("stated", ["", "  ", "2 red,\n 3 blue "])
def test_marks_change_no_letter_of_what_was_stated(stated: str) -> None:
    assert "".join(piece for piece, _ in astray("2 red, 1 blue", stated)) == stated
    assert [piece for piece, wrong in astray("2 red, 1 blue", stated) if wrong] == (["3"] if "3" in stated else [])


def test_a_text_too_long_to_compare_is_not_marked() -> None:
    long = "a " * (MAX_WORDS + 1)
    assert astray("b", long) == [(long, False)]
