"""docs/tutorial.md as a newcomer follows it: its commands in their order, on the packaged tiny model; only the sizes are smaller."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from percasym.cli import main as cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
SMALLER = {
    "percasym export": ["--num", "40"],
    "percasym audit": ["--samples", "2"],
    "python train.py": [
        "paradigm.steps=1", "paradigm.batch_size=2", "evaluation.num_samples=2", "evaluation.num_curve_samples=2",
        "evaluation.max_new_tokens=4",
    ],
}  # fmt: skip
"""What a test adds to a command of the page; the last of two values counts."""


def commands(page: str) -> list[str]:
    return re.findall(r"^    ((?:percasym|python) .*)$", page, flags=re.MULTILINE)


def words_of(line: str) -> list[str]:
    """The words of a command, without its name, with the smaller sizes in place of its own."""
    _, *words = shlex.split(line)
    more = next((more for name, more in SMALLER.items() if line.startswith(name)), [])
    keys = {word.partition("=")[0] for word in more if "=" in word}
    words = [word for word in words if word.partition("=")[0] not in keys]
    if "--num" in words and "--num" in more:
        del words[words.index("--num") : words.index("--num") + 2]
    return [*words, *more]


@pytest.mark.slow
def test_the_commands_of_the_tutorial_run_in_their_order(command, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    lines = commands(PAGE.read_text(encoding="utf-8"))
    assert [" ".join(line.split()[:2]) for line in lines] == [
        "percasym export", "percasym audit", "python train.py", "percasym compare", "percasym report",
    ]  # fmt: skip
    shown = {}
    for line in lines:
        program, first = line.split()[:2]
        if program == "python":
            answer = command(*words_of(line)[1:])
            assert answer.code == 0, answer.err
        else:
            assert cli.main(words_of(line)) == 0, capsys.readouterr().err
            shown[first] = capsys.readouterr().out
    assert "perception's share" in shown["audit"] and "weight of NGDiff" in shown["audit"]
    assert "ngdiff minus" in shown["compare"] and "asymmetry" in shown["compare"]
    assert (tmp_path / "multirun/starved/report/report.html").is_file()
