"""Regular expressions of the user end in time, whatever the expression and the row."""

from __future__ import annotations

import re
import time

import pytest

from percasym.tasks.given.patterns import Expression, compiled


def test_a_search_that_backtracks_is_ended() -> None:
    found = compiled("boundary", "(a|aa)+$")
    assert found is not None
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"task\.boundary='\(a\|aa\)\+\$' has not matched after 0\.1 seconds\. "):
        Expression("boundary", found.compiled, seconds=0.1).search("a" * 60 + "c")
    assert time.monotonic() - began < 20, "re would need a million years"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("((a{1000}){1000}){1000}", "repeats 1,000,000,000 times"),
        ("(a{,99999}){2}", "repeats 199,998 times"),
        ("a" * 5000, "has 5,000 characters"),
        ("(", "must be a regular expression"),
        ("(" * 2000 + ")" * 2000, "must be a regular expression"),
        ("[a-", "must be a regular expression"),
    ],
)
def test_an_expression_that_would_fill_the_memory_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as refused:
        compiled("boundary", pattern)
    assert len(str(refused.value)) < 300


def test_ordinary_expressions_are_what_re_reads() -> None:
    for pattern, text in ((r" ?THINK", "Two red. THINK so"), (r"(?P<answer>\d+)\s*$", "it is 42 "), (r"(?s)<a>.*?</a>", "<a>\n</a>")):
        found, expected = compiled("boundary", pattern), re.search(pattern, text)
        assert found is not None and expected is not None
        ours = found.search(text)
        assert ours is not None
        assert (ours.span(), ours.groupdict()) == (expected.span(), expected.groupdict())
    assert compiled("boundary", None) is None
