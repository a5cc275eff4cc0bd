"""The pages in Markdown: docs/architecture.md names what is there, and lines have at most 120 characters."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
SECURITY = ROOT / "docs" / "security.md"
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


def named_tests(page: str) -> dict[str, list[tuple[str, str]]]:
    """Attack -> file and name of each test in the last column of the table of attacks; letters stand for files, as the page says."""
    files = dict(re.findall(r"^\| ([A-Z]{1,2}) \| `(tests/[\w/]+\.py)` \|$", page, flags=re.MULTILINE))
    row = r"^\| (.+?) \| .+? \| .+? \| ((?:[A-Z]{1,2} `\w+`(?:, )?)*) \|$"
    rows = re.findall(row, page.partition("## Attacks")[2], flags=re.MULTILINE)
    tests = {attack: re.findall(r"([A-Z]+) `(\w+)`", named) for attack, named in rows}
    return {attack: [(files.get(letter, letter), name) for letter, name in named] for attack, named in tests.items()}


def test_every_attack_on_the_page_names_tests_that_exist() -> None:
    page = SECURITY.read_text(encoding="utf-8")
    attacks = named_tests(page)
    table = page.partition("## Attacks")[2].partition("| attack |")[2].partition("\n\n")[0]
    assert len(attacks) == len(table.splitlines()) - 2 > 30, "each row of the table is read"
    missing = [
        (attack, file, name)
        for attack, tests in attacks.items()
        for file, name in tests or [("", "none")]
        if not (ROOT / file).is_file() or f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_the_checks_can_fail() -> None:
    page = "| A | `tests/a.py` |\n## Attacks\n| an attack | bad | good | A `test_x`, B `test_y` |\n| another | bad | good |  |\n"
    assert named_tests(page) == {"an attack": [("tests/a.py", "test_x"), ("B", "test_y")], "another": []}
    assert named_modules("| `percasym/spans/` | `codec.py`, `gone.py` | text |\n") == {"percasym/spans/codec.py", "percasym/spans/gone.py"}
    assert paths("see `percasym/gone.py` and `conf/<group>/x.yaml`") == {"percasym/gone.py"}
    assert long_lines("word " * 30) and not long_lines("| " + "word " * 30) and not long_lines("```\n" + "word " * 30 + "\n```")


def doubled(text: str) -> list[str]:
    """Paragraphs of at least 25 words, tables excepted, that a page has twice; by their first words."""
    paragraphs = [" ".join(one.split()) for one in re.split(r"\n\s*\n", text)]
    return sorted({one[:60] for one in paragraphs if not one.startswith("|") and paragraphs.count(one) > 1 and len(one.split()) >= 25})


def test_no_page_says_a_passage_twice() -> None:
    paths = [*ROOT.glob("*.md"), *(path for folder in ("docs", "experiments") for path in (ROOT / folder).rglob("*.md"))]
    twice = {str(path.relative_to(ROOT)): doubled(path.read_text(encoding="utf-8")) for path in paths if "results" not in path.parts}
    assert {name: found for name, found in twice.items() if found} == {}


def test_a_passage_that_stands_twice_is_found() -> None:
    passage = " ".join(["A token costs as much as it did before, on this machine and on that one."] * 2)
    assert doubled(f"{passage}\n\nOther text.\n\n{passage}\n") == [passage[:60]]
