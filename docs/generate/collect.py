"""Collect the pages that mkdocs.yml names, and the files that they link to, into build/pages: `make site` makes a web site of them.

    python docs/generate/collect.py && mkdocs build --strict

The pages keep their places, so a link that works in the repository works on the site. Nothing is fetched.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(?:#[^)]*)?\)")
"""A link of Markdown to a file of the repository."""


def main(root: Path, target: Path) -> None:
    """Copy the pages of `root` and what they link to into the folder `target`, which is emptied first."""
    shutil.rmtree(target, ignore_errors=True)
    for path in [*pages(root), *linked(root)]:
        copy = target / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def pages(root: Path) -> list[Path]:
    """The pages of the navigation, in their order."""
    return [root / name for name in _names(yaml.safe_load((root / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])]


def _names(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from _names(inner)


def linked(root: Path) -> list[Path]:
    """Every file that a page links to, directly or through linked pages, and that is no page of the navigation; no folders."""
    shown = set(pages(root))
    found: set[Path] = set()
    todo = list(shown)
    while todo:
        page = todo.pop()
        targets = {(page.parent / link).resolve() for link in links(page)}
        new = {path for path in targets - shown - found if path.is_file() and path.is_relative_to(root)}
        found |= new
        todo += [path for path in new if path.suffix == ".md"]
    return sorted(found)


def links(page: Path) -> list[str]:
    """The files that a page links to, as written; what stands in code is no link."""
    return LINK.findall(re.sub(r"`[^`\n]*`(?!\])", "", page.read_text(encoding="utf-8")))


def broken(root: Path) -> list[str]:
    """Links of pages that lead nowhere, as `page: link`."""
    every = [(page, link) for page in pages(root) for link in links(page)]
    return [f"{page.relative_to(root)}: {link}" for page, link in every if not (page.parent / link).exists()]


if __name__ == "__main__":
    main(ROOT, ROOT / "build" / "pages")
