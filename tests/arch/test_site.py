"""The web site of docs/: every page is in its navigation, no link is broken, and nothing is loaded from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "generate"))

import collect  # noqa: E402, beside its templates

FOREIGN = re.compile(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']?(?:https?:)?//[^"'>\s]+""")
"""An element that loads something from another host."""


def test_every_page_is_in_the_navigation() -> None:
    shown = {path.relative_to(ROOT) for path in collect.pages(ROOT)}
    there = {path.relative_to(ROOT) for folder in ("docs", "experiments") for path in (ROOT / folder).rglob("*.md")}
    there = {path for path in there if not {"results", "generate"} & set(path.parts)}
    assert there - shown == set(), "add them to the nav of mkdocs.yml"
    assert [str(path) for path in shown if not (ROOT / path).is_file()] == []


def test_no_link_of_a_page_is_broken() -> None:
    assert collect.broken(ROOT) == []


def test_a_broken_link_and_a_forgotten_page_are_found(tmp_path: Path) -> None:
    (tmp_path / "mkdocs.yml").write_text("nav:\n  - a.md\n  - More: [b.md]\n")
    (tmp_path / "a.md").write_text("[b](b.md#part) [picture](c.png) [gone](gone.md) [web](https://example.org) `[x](y)`")
    (tmp_path / "b.md").write_text("")
    (tmp_path / "c.png").write_bytes(b"")
    assert collect.pages(tmp_path) == [tmp_path / "a.md", tmp_path / "b.md"]
    assert collect.linked(tmp_path) == [tmp_path / "c.png"]
    assert collect.broken(tmp_path) == ["a.md: gone.md"]


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and mkdocs make them of its headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_an_anchor_of_a_link_is_a_heading() -> None:
    pages = [path for path in collect.pages(ROOT) if path.name != "CHANGELOG.md"]
    named = [(page, *link) for page in pages for link in re.findall(r"\]\(([\w./-]+\.md)?#([\w-]+)\)", page.read_text(encoding="utf-8"))]
    assert len(named) > 5
    gone = [(str(page.relative_to(ROOT)), at) for page, to, at in named if at not in headings((page.parent / to).resolve() if to else page)]
    assert gone == []


def test_no_font_is_fetched() -> None:
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["theme"]["font"] is False


def test_a_page_that_loads_from_elsewhere_is_found() -> None:
    assert FOREIGN.search('<script src="https://cdn.example.org/a.js"></script>')
    assert not FOREIGN.search('<a href="https://example.org">a link</a> <script src="assets/a.js"></script>')


def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None or find_spec("material") is None:
        pytest.skip("mkdocs-material is installed by `make site`")
    shutil.copyfile(ROOT / "mkdocs.yml", tmp_path / "mkdocs.yml")
    collect.main(ROOT, tmp_path / "build" / "pages")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = sorted((tmp_path / "build" / "site").rglob("*.html"))
    assert len(made) >= len(collect.pages(ROOT))
    assert [path.name for path in made if FOREIGN.search(path.read_text(encoding="utf-8"))] == []
