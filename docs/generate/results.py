"""Write every measured number of README.md, docs/ and experiments/ from the results file that holds it, and README's picture.

    python docs/generate/results.py        (`make docs`)

A page marks a place by `<!-- result: NAME -->` and `<!-- end -->`. The text between them is the Jinja template templates/NAME.md.j2,
rendered: prose with numbers, or a table. So a page reads as it stands, and no number of it is typed twice.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from percasym.report.comparison import verdict
from percasym.types import Estimate

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = Path(__file__).resolve().parent / "templates"
WIDTH = 120
"""Longest line of prose, as tests/arch has it."""
PICTURES = {f"docs/figures/{name}.svg": f"{name}.svg.j2" for name in ("miniature", "miniature_qwen3vl", "rl_demo")}
"""Pictures that a template draws from results files; light and dark."""
BLOCK = re.compile(r"(?P<begin><!-- result: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end -->)", flags=re.DOTALL)


class ResultError(ValueError):
    """A template names a file, row or key that does not exist."""


def main(argv: Sequence[str]) -> int:
    """Rewrite the pages whose numbers have changed, and the pictures, and print their paths."""
    root = Path(argv[0]) if argv else ROOT
    for path in pages(root):
        before = path.read_text(encoding="utf-8")
        after = written(before, root)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(path.relative_to(root))
    for name in PICTURES:
        after = drawn(name, root)
        if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != after:
            (root / name).write_text(after, encoding="utf-8")
            print(name)
    return 0


def pages(root: Path) -> list[Path]:
    """The Markdown pages that may hold numbers, except those that a report wrote."""
    found = [root / "README.md", *sorted((root / "docs").rglob("*.md")), *sorted((root / "experiments").rglob("*.md"))]
    return [path for path in found if "results" not in path.relative_to(root).parts]


def written(page: str, root: Path = ROOT) -> str:
    """The page with each block rendered anew."""
    environment = _environment(root)

    def block(found: re.Match[str]) -> str:
        text = environment.get_template(f"{found['name']}.md.j2").render()
        return f"{found['begin']}{filled(text)}{found['end']}"

    return BLOCK.sub(block, page)


def drawn(name: str, root: Path = ROOT) -> str:
    """The picture `name` of `PICTURES`, as SVG."""
    return _environment(root).get_template(PICTURES[name]).render()


def outside(page: str) -> str:
    """The page without its blocks: what is written by hand."""
    return BLOCK.sub("", page)


def filled(text: str) -> str:
    """Prose broken at WIDTH; tables, code, pictures and headings as they are.

    >>> filled("one\\ntwo\\n\\n| a |\\n")
    'one two\\n\\n| a |\\n'
    """
    shown = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if re.match(r"\||    |!\[|#", paragraph):
            shown.append(paragraph)
        else:
            items = re.split(r"\n(?=- |\d+\. )", paragraph)
            shown.append("\n".join(_wrapped(item) for item in items))
    return "\n\n".join(shown) + "\n"


def _wrapped(item: str) -> str:
    indent = " " * len(found[0]) if (found := re.match(r"- |\d+\. ", item)) else ""
    words = re.sub(r"\[[^]]*\]", lambda found: found[0].replace(" ", "\0"), " ".join(item.split()))  # An interval stays on one line.
    return textwrap.fill(words, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False).replace("\0", " ")


def _environment(root: Path) -> Environment:
    loader = FileSystemLoader(TEMPLATES)
    made = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    files = Files(root)
    made.globals |= {"json": files.json, "rows": files.rows, "row": files.row}
    made.globals |= {"grid": grid, "found": files.sentence, "ratios": ratios}
    made.filters |= {"percent": percent, "points": points, "interval": interval, "verdict": said}
    made.filters |= {"r": correlation, "one": one, "ratio": ratio, "signed": signed, "thousands": thousands, "level": level}
    return made


# What templates read


class Files:
    """Results files of a checkout, by their paths relative to its root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _text(self, path: str) -> str:
        if not (self.root / path).is_file():
            raise ResultError(f"{path} does not exist: a template reads it.")
        return (self.root / path).read_text(encoding="utf-8")

    def json(self, path: str) -> Any:
        """The content of a JSON file."""
        return json.loads(self._text(path))

    def rows(self, path: str, **where: str) -> list[dict[str, Any]]:
        """The rows of a CSV file whose columns have these values; numbers as float, empty fields as nan."""
        read = csv.DictReader(self._text(path).splitlines())
        chosen = (row for row in read if all(row[key] == value for key, value in where.items()))
        return [{key: _number(value) for key, value in row.items()} for row in chosen]

    def row(self, path: str, **where: str) -> dict[str, Any]:
        """The only such row."""
        return _only(self.rows(path, **where), path, where)

    def sentence(self, path: str, pattern: str) -> str:
        """The first group of a regular expression in a text that a command wrote."""
        if (match := re.search(pattern, self._text(path))) is None:
            raise ResultError(f"{path} has no {pattern!r}.")
        return match[1]


def _number(value: str) -> Any:
    if value == "":
        return float("nan")
    try:
        return float(value)
    except ValueError:
        return value


def _only(chosen: Sequence[Any], path: str, where: Mapping[str, str]) -> Any:
    if len(chosen) != 1:
        raise ResultError(f"{path} has {len(chosen)} rows with {where}; a number comes from one.")
    return chosen[0]


# How numbers are written


def percent(value: float) -> str:
    """A share in percent.

    >>> percent(0.4609)
    '46.1'
    """
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of shares, in points.

    >>> points(0.041), points(-0.0664)
    ('+4.1', '-6.6')
    """
    return f"{100 * value:+z.1f}"


def interval(part: Mapping[str, Any], name: str = "", signed: bool = True) -> str:
    """The 95 % interval of a row of cells.csv (`difference`, `gain`, or "" for its mean) or of a number of a summary.

    >>> interval({"difference_low": -0.0006, "difference_high": 0.0726}, "difference")
    '[-0.1, +7.3]'
    """
    low, high = estimate(part, name).ci95
    shown: Callable[[float], str] = points if signed else percent
    return f"[{shown(low)}, {shown(high)}]"


def estimate(row: Mapping[str, Any], name: str = "") -> Estimate:
    """A value of cells.csv, or of a summary, with its interval."""
    if "ci95" in row:
        return Estimate(mean=row["mean"], ci95=tuple(row["ci95"]), n=row["n"])
    low, high = (row[f"{name}_{end}".lstrip("_")] for end in ("low", "high"))
    return Estimate(mean=row.get(name or "mean", math.nan), ci95=(low, high), n=int(row.get("n", 0)))


def said(row: Mapping[str, Any], name: str = "", predicted: bool = True) -> str:
    """The verdict of an interval, in the words of the report; `predicted`: above 0 was predicted."""
    found = verdict(estimate(row, name), predicted=predicted)
    if found is None:
        raise ResultError(f"{row} has no {name or 'mean'}.")
    return str(found)


def correlation(row: Mapping[str, float], name: str) -> str:
    """A correlation with its interval, as the tables of rewards have it.

    >>> correlation({"a_r": 0.481, "a_low": -0.263, "a_high": 1.0}, "a")
    '.48 [-.26, 1.00]'
    """
    mean, low, high = (re.sub(r"^(-?)0\.", r"\1.", f"{row[f'{name}_{part}']:.2f}") for part in ("r", "low", "high"))
    return f"{mean} [{low}, {high}]"


def one(value: float, digits: int = 2) -> str:
    """A number with so many digits after the point.

    >>> one(1.0649)
    '1.06'
    """
    return f"{value:.{digits}f}"


def level(part: Mapping[str, Any], name: str = "") -> str:
    """The interval of an accuracy in whole percent.

    >>> level({"mean": 0.469922, "low": 0.442861, "high": 0.49716})
    '[44, 50]'
    """
    low, high = (f"{100 * end:.0f}" for end in estimate(part, name).ci95)
    return f"[{low}, {high}]"


def signed(value: float, digits: int = 1) -> str:
    """The same with its sign, also where it is positive.

    >>> signed(2.5), signed(-3, 0)
    ('+2.5', '-3')
    """
    return f"{value:+.{digits}f}"


def thousands(value: float) -> str:
    """A whole number with commas.

    >>> thousands(151936)
    '151,936'
    """
    return f"{value:,.0f}"


def grid(table: Mapping[str, Sequence[Any]]) -> str:
    """A table of a record, as it was written down: its header, the alignment of its columns, and its rows of texts.

    >>> grid({"header": ["k", "w"], "align": ["---", "---:"], "rows": [["2", "0.1"]]})
    '| k | w |\\n|---|---:|\\n| 2 | 0.1 |'
    """
    cells = [f"| {' | '.join(row)} |".replace("|  |", "| |").replace("|  |", "| |") for row in (table["header"], *table["rows"])]
    return "\n".join([cells[0], f"|{'|'.join(table['align'])}|", *cells[1:]])


def ratios(rounds: Sequence[Mapping[str, Any]], arm: str, beside: str) -> dict[str, float]:
    """Median, least and greatest of the seconds of `arm` over those of `beside`, round by round.

    >>> ratios([{"a": {"seconds": 1}, "b": {"seconds": 2}}, {"a": {"seconds": 3}, "b": {"seconds": 2}}], "a", "b")
    {'median': 1.0, 'low': 0.5, 'high': 1.5}
    """
    found = [each[arm]["seconds"] / each[beside]["seconds"] for each in rounds]
    return {"median": median(found), "low": min(found), "high": max(found)}


def ratio(values: Mapping[str, float], digits: int = 2) -> str:
    """Median with least and greatest of a ratio that a benchmark measured.

    >>> ratio({"median": 0.7123, "low": 0.55, "high": 0.861})
    '0.71 (0.55 to 0.86)'
    """
    middle = values["median"] if "median" in values else values["ratio"]
    low, high = (values[first] if first in values else values[other] for first, other in (("low", "lowest"), ("high", "highest")))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
