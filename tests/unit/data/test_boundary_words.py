"""Regular expressions on the command line arrive unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from percasym.config.resolve import composed, force_options
from percasym.config.schema import ConfigError
from percasym.tasks.given.task import Given

CONF = Path(__file__).resolve().parents[3] / "conf"
WORDS = [
    r"\n\(Reasoning\) ", r"[.] ", r"</CAPTION>\s*<REASONING>", r"it's \\", r"a,b", r"x = [1, {2: 3}]", "\\", "  ",
    r"(?P<percept>.*)\. (?P<reasoning>.*)", "Schluß: ",
]  # fmt: skip


@pytest.mark.parametrize("pattern", WORDS)
def test_a_boundary_reaches_the_task_as_it_was_typed(pattern: str) -> None:
    if pattern == "\\":
        with pytest.raises(ConfigError, match=r"task.boundary must be a regular expression"):
            composed(["task=jsonl", "task.path=rows.jsonl", f"task.boundary={pattern}"], CONF)
        return
    task = composed(["task=jsonl", "task.path=rows.jsonl", f"task.boundary={pattern}"], CONF).task
    assert isinstance(task, Given) and task.boundary == pattern


@given(st.text(alphabet="\\'\"ab ()[]{},=:$\n|.*", min_size=1, max_size=12))
def test_hydra_reads_back_any_expression(value: str) -> None:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if not quoted and "${" not in value:
        (word,) = force_options([f"task.boundary={value}"], CONF)
        assert OverridesParser.create().parse_override(word).value() == value


def test_an_expression_that_is_quoted_or_null_stays() -> None:
    assert composed(["task=jsonl", "task.path=a", "task.boundary='x, y'"], CONF).task.boundary == "x, y"
    assert composed(["task=jsonl", "task.path=a", "task.boundary=null"], CONF).task.boundary is None


def test_a_boundary_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "boundary.txt"
    file.write_text("\\n\\(Reasoning\\) \n")
    task = composed(["task=jsonl", "task.path=rows.jsonl", f"task.boundary_file={file}"], CONF).task
    found = task._boundary()
    assert found is not None and found.pattern == r"\n\(Reasoning\) ", "the space at the end counts, the line end does not"
    with pytest.raises(ConfigError, match=r"task.boundary and task.boundary_file are both set. Leave one out."):
        composed(["task=jsonl", "task.path=a", f"task.boundary_file={file}", "task.boundary=x"], CONF)
    with pytest.raises(ConfigError, match=r"task.boundary_file=nowhere.txt cannot be read \(No such file or directory\)."):
        composed(["task=jsonl", "task.path=a", "task.boundary_file=nowhere.txt"], CONF)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="must hold a regular expression, and it is empty"):
        composed(["task=jsonl", "task.path=a", f"task.boundary_file={file}"], CONF)
