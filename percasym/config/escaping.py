"""The one way to show a text that somebody else may have written, for each place where texts are shown.

Names, reasons and responses come from files of runs. A terminal obeys control characters in them, a spreadsheet computes cells that
begin with =, Markdown reads marks. HTML is escaped by the templates (autoescape), mathematics is off in all figures (`report.style`).
"""

from __future__ import annotations

import re

HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Control characters but tab and newline, marks that reorder or hide text, and halves of characters, which no terminal can be sent."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet computes."""
MARKS = re.compile(r"([\\`*_{}\[\]<>|~$#!&])")
"""Marks of Markdown, those of tables, HTML and mathematics included."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")


def visible(text: str) -> str:
    """`text` for a terminal or a log: one replacement character for each that would be obeyed or not seen.

    >>> visible("\\x1b[2Jdone\\n")
    '\ufffd[2Jdone\\n'
    """
    return HIDDEN.sub("\ufffd", text)


def sentence(text: str) -> str:
    """`text` on one visible line."""
    return visible(" ".join(text.split()))


def shortened(error: Exception, most: int = 200) -> str:
    """The message of a library's error on one line: its whole sentences within `most` characters, or its beginning and "..." without one.

    >>> shortened(ValueError("Cannot load it.\\nIf you meant to, see below."), most=20), shortened(ValueError("out of bounds"), most=8)
    ('Cannot load it.', 'out of b...')
    """
    text = " ".join(str(error).split())
    if len(text) <= most:
        return text
    whole = re.match(rf".{{1,{most - 1}}}[.!?](?= [A-Z])", text)
    return whole[0] if whole else f"{text[:most]}..."


def counted(number: int, noun: str, many: str = "") -> str:
    """A count with its noun in the right number; `many` is a plural that does not end in s.

    >>> counted(1, "run"), counted(2, "run"), counted(0, "study", "studies")
    ('1 run', '2 runs', '0 studies')
    """
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def short_name(name: object) -> str:
    """A name in a file, such as a key of its JSON, for a sentence: one line, at most 80 characters.

    >>> short_name("vocab_size"), short_name("a\\nb")
    ('vocab_size', 'a b')
    """
    return sentence(str(name))[:80]


def csv_cell(text: str) -> str:
    """`text` as a cell that no spreadsheet computes: a quote before what would be a formula; numbers stay.

    >>> csv_cell("=1+1"), csv_cell("-0.25"), csv_cell("-2+3")
    ("'=1+1", '-0.25', "'-2+3")
    """
    shown = visible(text)
    return f"'{shown}" if shown.startswith(FORMULA) and not NUMBER.fullmatch(shown) else shown


def markdown(text: str) -> str:
    """`text` in a line or cell of Markdown, with a backslash before each mark that would be read as one.

    A mark inside a word is none (sft_frontier), and brackets without an address behind them are none ([+1, +5]).

    >>> markdown("a|b <script>"), markdown("[x](http://y)"), markdown("sft_frontier 3.4 [+1, +5]")
    ('a\\\\|b \\\\<script\\\\>', '\\\\[x\\\\](http://y)', 'sft_frontier 3.4 [+1, +5]')
    """
    return MARKS.sub(_escaped, " ".join(visible(text).split()))


def _escaped(found: re.Match[str]) -> str:
    text, at, mark = found.string, found.start(), found[0]
    before, after = text[:at][-1:], text[at + 1 :][:1]
    if mark == "_" and before.isalnum() and after.isalnum():
        return mark
    if mark in "[]" and not re.search(r"\][(\[:]", text):
        return mark
    return "\\" + mark
