"""Measured numbers in Markdown come from results files: `make docs` writes them, and these tests fail where one differs."""

from __future__ import annotations

import csv
import doctest
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "generate"))

import results  # noqa: E402, beside its templates

README = ROOT / "README.md"
MOST_WORDS = 1000
WRITTEN = {"plans.md", "vllm-alignment.md", "licences.md", "configuration.md", "commands.md", "python.md"}
"""Pages that a command writes as a whole; they have tests of their own."""
PLANNED = {"experiments/paper_scale/README.md"}
"""Pages of what `percasym plan` says, not of measurements."""
STATED: Mapping[str, str] = {
    "docs/in-your-trainer.md": "0.025|0.5|0.51|5.23",
    "docs/security.md": "200 times|99 times",
    "docs/slurm.md": "-6",
    "docs/statistics.md": "-1|3 points|7 %",
    "docs/strategies.md": "0.5",
    "docs/tasks.md": "2.5|5 %",
    "docs/your-data.md": "-16|-8|0 %|200 times|5 %|6.0",
    "experiments/c2_shares/README.md": "1.3|2.5",
    "experiments/c3_interior_optimum/README.md": "0.02|0.4",
    "experiments/c5_coupling/README.md": "0.34|0.43|0.65|1.00",
    "experiments/c6_rl_weight/README.md": "0.7",
    "experiments/earlier/README.md": "0.03|0.3|0.7",
    "experiments/sft_miniature/LOG.md": "-3",
}
"""What looks measured on a page and is not: weights and other settings, predictions, bounds, the paper's numbers, examples."""
IN_TEMPLATES: Mapping[str, str] = {
    "c7.md.j2": "0.3",
    "c3-verdict.md.j2": "0.05",
    "claims.md.j2": "0.1",
    "performance-trainer.md.j2": "1.15",
    "rl-regimes-gains.md.j2": "0.3",
    "performance-unpaid.md.j2": "9.0",
    "performance-vllm.md.j2": "0.8|±",
    "sft-miniature-choice.md.j2": "±",
    "sft-miniature-steps.md.j2": "±",
    "speed.md.j2": "2.5",
    "statistics-intervals.md.j2": "-2",
}
"""The same in a template: weights, aims, bounds."""
MEASURED = re.compile(r"\d+\.\d+|\d ?%|±|[+-]\d+\b|\d+ (?:points|times)")
"""What looks measured: decimals, percentages, signed numbers, points, factors."""


def by_hand(page: str) -> list[str]:
    """What looks measured on a page and stands outside its blocks, code, links and sources."""
    text = results.outside(page)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"95[ -]%|`[^`]*`|\]\([^)]*\)|arXiv[: ]\S+|doi:\S+|https?://\S+|[\w.]*\d+(?:\.\d+)*B\b|\bv?\d+\.\d+\.\d+\b", "", text)
    versioned = r"(?:Python|PyTorch|torch|transformers|TRL|vLLM|DeepSpeed|InternVL|Qwen[\d.]*-?V?L?|Gemma|Apache-)"
    text = re.sub(r"\b\d{4}-\d\d-\d\d\b|\b(?:ZeRO|SHA|x86|UTF)-\d+", "", text)
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


@pytest.mark.parametrize("path", results.pages(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_has_a_measured_number_outside_its_blocks(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    if path.name not in WRITTEN and name not in PLANNED:
        assert set(by_hand(path.read_text(encoding="utf-8"))) <= set(STATED.get(name, "").split("|")), "put it into a results file"


@pytest.mark.parametrize("name", ["docs/performance.md", "docs/statistics.md", "docs/vllm.md", "docs/security.md", "docs/strategies.md"])
def test_a_wrong_or_a_new_number_in_a_page_is_found(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    block = next(block[0] for block in results.BLOCK.finditer(page) if re.search(r"\d+\.\d", block[0]))
    number = re.search(r"\d+\.\d+", block)
    assert number is not None
    wrong = page.replace(block, block.replace(number[0], "98.76", 1))
    assert results.written(wrong) == page != wrong
    assert set(by_hand(page + "\nIt takes 98.76 % of the time.\n")) - set(STATED.get(name, "").split("|")) == {"98.76"}


@pytest.mark.parametrize("study", ["earlier", "c7_surrogates", "rl_regimes", "balancing_map", "sft_miniature"])
def test_a_wrong_number_in_a_study_is_found(study: str) -> None:
    page = (ROOT / "experiments" / study / "README.md").read_text(encoding="utf-8")
    wrong = results.BLOCK.sub(lambda block: re.sub(r"(?<![\d.])\d+\.\d(?!\d)", "98.7", block[0]), page)
    assert results.written(wrong) == page
    assert wrong.count("98.7") >= 10, "every number of every block was wrong"


@pytest.mark.parametrize(
    ("name", "study", "page"),
    [
        ("miniature", "c1_asymmetry", "experiments/sft_miniature/README.md"),
        ("miniature_qwen3vl", "miniature_qwen3vl", "README.md"),
    ],
)
def test_a_picture_is_drawn_from_its_results_files(name: str, study: str, page: str) -> None:
    path = f"docs/figures/{name}.svg"
    picture = (ROOT / path).read_text(encoding="utf-8")
    with (ROOT / "experiments" / study / "results/cells.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    gains = [row["gain"] for row in rows if row["metric"] in ("end_to_end", "perception", "reasoning")]
    assert len(gains) == 6 and all(f"{100 * float(gain):+.1f} [" in picture for gain in gains)
    assert picture.count('class="seed ') == 2 * 3 * 5, "five seeds of each strategy in each metric"
    assert "prefers-color-scheme: dark" in picture and f"{path})" in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(results.PICTURES))
def test_every_picture_is_up_to_date_and_stands_on_a_page(path: str) -> None:
    assert results.drawn(path) == (ROOT / path).read_text(encoding="utf-8"), "run `make docs`"
    assert any(f"{path})" in page.read_text(encoding="utf-8") for page in results.pages(ROOT))


def templates() -> list[Path]:
    return sorted((ROOT / "docs" / "generate" / "templates").glob("*.md.j2"))


def test_no_template_has_a_measured_number_of_its_own() -> None:
    typed = {
        path.name: set(by_hand(re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)))
        for path in templates()
    }
    assert {name: found - set(IN_TEMPLATES.get(name, "").split("|")) for name, found in typed.items()} == {name: set() for name in typed}


def recorded_files() -> list[Path]:
    return sorted([*(ROOT / "benchmarks" / "results").glob("recorded.json"), *(ROOT / "experiments").glob("*/results/recorded.json")])


def test_a_number_that_was_recorded_by_hand_has_its_command_commit_and_machine() -> None:
    assert len(recorded_files()) == 3
    for path in recorded_files():
        for name, record in json.loads(path.read_text(encoding="utf-8")).items():
            assert record["command"] and record["machine"] and re.fullmatch(r"[0-9a-f]{7}", record["commit"]), (path, name)
            assert record.get("values") or record.get("tables") or record.get("lines"), (path, name)


def test_every_recorded_number_stands_on_a_page() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in templates())
    pages = "\n".join(path.read_text(encoding="utf-8") for path in results.pages(ROOT))
    for path in recorded_files():
        for name, record in json.loads(path.read_text(encoding="utf-8")).items():
            keys = [key for key in record.get("values", {}) if json.dumps(key, ensure_ascii=False) not in text]
            assert keys == [], (path, name)
    unused = [path.name for path in templates() if f"<!-- result: {path.name.removesuffix('.md.j2')} -->" not in pages]
    assert unused == [], "templates that no page names"


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
