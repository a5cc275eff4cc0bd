"""The pages in Markdown: docs/architecture.md names what is there, and lines have at most 120 characters."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
WIDTH = 120
FOLDERS = ("docs", "experiments", "examples", "benchmarks", "percasym", "tests")
WALKS = {"### An SFT sample from key to loss": 18, "### `balance.smoothing=.9` from the command line to its effect": 9}
"""The two walks of the page, and how many files each may name."""


def named_modules(page: str) -> set[str]:
    """The modules in the rows of the table of folders."""
    rows = re.findall(r"^\| `(percasym/[\w/]*)` \| ([^|]*) \|", page, flags=re.MULTILINE)
    return {f"{folder}{name}" for folder, names in rows for name in re.findall(r"`(\w+\.py)`", names)}


def paths(text: str) -> set[str]:
    """What a text names as a path of this repository, in backticks and without a placeholder."""
    named = re.findall(r"`((?:percasym|conf|docs|tests|examples|benchmarks)/[\w/.]+|train\.py)`", text)
    return {path.rstrip("/") for path in named}


def walk(page: str, title: str) -> list[str]:
    """The numbered items of one walk."""
    section = page.partition(f"{title}\n")[2].partition("\n#")[0]
    return re.findall(r"^\d+\. `([\w/.]+)`", section, flags=re.MULTILINE)


def long_lines(text: str) -> list[str]:
    """Lines of prose that are too long: tables, code and single words (links, pictures) may be."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for line in prose.splitlines() if len(line) > WIDTH and not re.match(r"\||    |!\[", line) and " " in line.strip()]


def test_every_module_is_named() -> None:
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "percasym").rglob("*.py") if path.name != "__init__.py"}
    named = named_modules(PAGE.read_text(encoding="utf-8"))
    folders = sorted({f"{Path(name).parent}/" for name in there - named})
    assert there - named == set(), f"`make docs` lists them; give these folders a row in {PAGE.name} first where they have none: {folders}"
    assert named - there == set(), "`make docs` takes them off the page; remove the row of a folder that is gone"


def test_every_path_on_the_page_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = sorted(path for path in paths(text) if not (ROOT / path).exists())
    assert missing == [], f"{PAGE.name} names what is gone; find out where it went (git log --follow) and name that"


def test_the_walks_are_short_and_name_files() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for title, most in WALKS.items():
        files = walk(text, title)
        assert 3 < len(files) <= most, f"{title}: {len(files)} files"
        assert [file for file in files if not (ROOT / file).is_file()] == []


def test_lines_of_prose_are_short() -> None:
    paths = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
    pages = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    pages = {name: text for name, text in pages.items() if not re.match(r"experiments/.*/results/|CHANGELOG\.md", name)}
    assert len(pages) > 5
    found = {name: lines for name, text in pages.items() if (lines := long_lines(text))}
    assert found == {}, f"break these lines at {WIDTH} characters"


def test_the_checks_can_fail() -> None:
    assert named_modules("| `percasym/spans/` | `codec.py`, `gone.py` | text |\n") == {"percasym/spans/codec.py", "percasym/spans/gone.py"}
    assert paths("see `percasym/gone.py` and `conf/<group>/x.yaml`") == {"percasym/gone.py"}
    assert long_lines("word " * 30) and not long_lines("| " + "word " * 30) and not long_lines("```\n" + "word " * 30 + "\n```")
