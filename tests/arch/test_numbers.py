"""Measured numbers in Markdown come from results files: `make docs` writes them, and these tests fail where one differs."""

from __future__ import annotations

import doctest
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "generate"))

import results  # noqa: E402, beside its templates

README = ROOT / "README.md"
MOST_WORDS = 1000
BY_HAND = "Figures outside the blocks that `make docs` writes were recorded by hand"
"""What a page says whose measured numbers have no results file."""
WRITTEN = {"plans.md", "vllm-alignment.md", "licences.md", "configuration.md", "commands.md", "python.md"}
"""Pages that a command writes as a whole; they have tests of their own."""
FEW = 5
"""So many on a page are bounds and examples (`0.5`, `1.1`), not results."""
MEASURED = re.compile(r"\d+\.\d+|\d ?%|±|[+-]\d+\b|\d+ (?:points|times)")
"""What looks measured: decimals, percentages, signed numbers, points, factors."""


def by_hand(page: str) -> list[str]:
    """What looks measured on a page and stands outside its blocks, code, links and sources."""
    text = results.outside(page)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"95[ -]%|`[^`]*`|\]\([^)]*\)|arXiv[: ]\S+|doi:\S+|https?://\S+|[\w.]*\d+(?:\.\d+)*B\b|\bv?\d+\.\d+\.\d+\b", "", text)
    versioned = r"(?:Python|PyTorch|torch|transformers|TRL|vLLM|DeepSpeed|InternVL|Qwen[\d.]*-?V?L?|Gemma|Apache-)"
    text = re.sub(rf"{versioned}[ -]?\d+(?:\.\d+)*", "", text)
    return MEASURED.findall(text)


@pytest.mark.parametrize("path", results.pages(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_number_is_that_of_its_results_file(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert results.written(page) == page, "run `make docs`"


def test_written_twice_a_page_is_the_same() -> None:
    for path in results.pages(ROOT):
        once = results.written(path.read_text(encoding="utf-8"))
        assert results.written(once) == once, path


def test_a_wrong_number_in_a_block_of_the_readme_is_found() -> None:
    page = README.read_text(encoding="utf-8")
    block = next(block[0] for block in results.BLOCK.finditer(page) if block["name"] == "conclusions")
    number = re.search(r"[+-]\d+\.\d", block)
    assert number is not None
    wrong = page.replace(block, block.replace(number[0], number[0][0] + "99.9", 1))
    assert results.written(wrong) == page != wrong


def test_the_readme_has_no_measured_number_outside_its_blocks() -> None:
    assert by_hand(README.read_text(encoding="utf-8")) == []


def test_a_wrong_number_outside_a_block_is_found() -> None:
    page = README.read_text(encoding="utf-8")
    for planted in ("a rises by 12.3 points", "half of it, 40 %", "a gain of +9", "3 times as fast"):
        assert by_hand(f"{page}\n{planted}.\n") != [], planted
    assert by_hand("Python 3.11, arXiv 2605.29496, `w = 0.3`, Qwen3-VL, [a](b_1.5.md), InternVL3.5 8B") == []


def test_pages_with_numbers_that_were_written_by_hand_say_so() -> None:
    silent = []
    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path.name not in WRITTEN and len(by_hand(text)) > FEW and BY_HAND not in " ".join(text.split()):
            silent.append(path.name)
    assert silent == []


def test_the_readme_is_short() -> None:
    words = len(README.read_text(encoding="utf-8").split())
    assert words <= MOST_WORDS, f"README.md has {words} words: move some to docs/"


def test_the_code_of_the_readme_is_that_of_a_page_whose_code_a_test_runs() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    run = (ROOT / "docs" / "in-your-trainer.md").read_text(encoding="utf-8").splitlines()
    lines = [line for line in block.splitlines() if line]
    assert [line for line in lines if line not in run] == []
    assert len(lines) <= 10


def test_the_examples_in_its_docstrings_hold() -> None:
    found = doctest.testmod(results)
    assert found.attempted > 7 and found.failed == 0


def test_a_template_that_names_what_is_not_there_fails(tmp_path: Path) -> None:
    files = results.Files(tmp_path)
    with pytest.raises(results.ResultError, match=r"gone\.json does not exist"):
        files.json("gone.json")
    (tmp_path / "cells.csv").write_text("cell,mean\nnone,0.5\nnone,0.6\n")
    with pytest.raises(results.ResultError, match="has 2 rows"):
        files.row("cells.csv", cell="none")
    with pytest.raises(results.ResultError, match="has 0 rows"):
        files.row("cells.csv", cell="fixed")
