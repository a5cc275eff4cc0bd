"""Texts of others in every output: shown as they are, never obeyed by a terminal, a spreadsheet, Markdown or matplotlib."""

from __future__ import annotations

import io
import os
import time
from base64 import b64encode
from pathlib import Path

import pytest
from rich.table import Table

from percasym.config.escaping import csv_cell, markdown, visible
from percasym.config.schema import ConfigError
from percasym.report.cards import MAX_WORDS, page_picture, word_marks
from percasym.report.load import MAX_METRICS_BYTES, load_run
from percasym.report.style import canvas
from percasym.report.tables import markdown_table
from percasym.runs.console import PlainConsole
from percasym.runs.study import Planned

EVIL = "\x1b]0;owned\x07[red]$x_$ <img src=x onerror=a()>|=1+1\u202e"


def test_a_terminal_is_sent_no_sequence_of_others_and_no_markup() -> None:
    for console in (PlainConsole(file=io.StringIO(), force_terminal=True, width=200), PlainConsole(file=io.StringIO(), width=200)):
        table = Table(title=EVIL)
        table.add_column(EVIL)
        table.add_row(EVIL, style="red")
        console.print(table, EVIL)
        shown = console.file.getvalue()
        assert "\x1b]" not in shown and "\x07" not in shown and "\u202e" not in shown
        assert shown.count("[red]") == 4


def test_cells_of_a_spreadsheet_are_texts() -> None:
    for text in ("=1+1", "+cmd|'/c calc'!A1", "-2+3", "@SUM(A1)", "\t=1"):
        assert csv_cell(text).startswith("'")
    for text in ("-0.25", "+1e-5", "0", "none", "", "-3.5%"):
        assert csv_cell(text) == text


def test_a_cell_of_markdown_stays_one_cell() -> None:
    made = markdown_table(["cell", "a"], [["a|b\n| c | <b>", "1"]])
    assert made.splitlines()[2] == r"| a\|b \| c \| \<b\> | 1 |"
    assert markdown("![x](http://y)") == r"\!\[x\](http://y)"
    assert visible("a\x00b\ud800") == "a\ufffdb\ufffd"


def test_a_dollar_sign_in_a_figure_is_no_mathematics() -> None:
    with canvas(1) as (figure, (axes,)):
        axes.set_title(r"$\frac{1}$ a")  # An even number of dollar signs: with an odd one matplotlib reads no mathematics.
    figure.canvas.draw()  # With mathematics it raises ValueError.


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "meta.json").write_text('{"id": "x", "status": "done", "seconds": 1.0}')
    return tmp_path


def test_metrics_that_are_a_pipe_a_link_or_enormous_are_refused(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    os.mkfifo(metrics)
    with pytest.raises(ConfigError, match="is a pipe, not a regular file"):
        load_run(run)
    metrics.unlink()
    metrics.symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        load_run(run)
    metrics.unlink()
    metrics.touch()
    os.truncate(metrics, MAX_METRICS_BYTES + 1)
    with pytest.raises(ConfigError, match="has 268,435,457 bytes"):
        load_run(run)


@pytest.mark.parametrize("text", ["a: &a [*a]", "[" * 5000, "seed: {}", "- 1"])
def test_a_configuration_of_another_form_is_refused(run: Path, text: str) -> None:
    (run / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml (is not|has an alias).* Restore it, or clear the run away\.$"):
        load_run(run)


def picture(width: int, height: int) -> str:
    return b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\0\0\0\0").decode()


@pytest.mark.parametrize(("width", "height"), [(0, 0), (0, 9), (50_000, 50_000), (2**31, 1)])
def test_a_picture_without_pixels_or_with_gigapixels_is_not_decoded(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"has {width} x {height} pixels"):
        page_picture("a", picture(width, height))


def test_a_study_of_a_thousand_seeds_is_a_list() -> None:
    from percasym.report.status import cell_and_seed, status

    planned = [Planned(name=f"cell{number}/seed{number}", words=()) for number in range(3000)]
    began = time.monotonic()
    shown = status([], planned, now=0.0)
    assert shown.row_count == 3000 and len(shown.columns) == 2
    assert time.monotonic() - began < 20
    assert cell_and_seed("cell/seed" + "9" * 5000) == ("seed" + "9" * 5000, 0), "no seed has so many digits"


def test_a_thousand_words_that_repeat_are_marked_in_time() -> None:
    began = time.monotonic()
    marked = word_marks("a b " * (MAX_WORDS // 2), "b a a " * (MAX_WORDS // 3))
    assert time.monotonic() - began < 5
    assert any(wrong for _, wrong in marked)
