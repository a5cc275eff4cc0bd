"""The walk of docs/your-data.md on a blank model: rows in a foreign format are audited, trained on and reported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from percasym.cli import main as cli
from percasym.tasks.given.task import Given
from percasym.types import Sample, SampleKey

SCRIPT = Path(__file__).resolve().parents[1] / "unit" / "data" / "someone_elses_data.py"
ROWS = 40
FEW = [
    "paradigm.steps=2",
    "paradigm.batch_size=2",
    "evaluation.num_samples=3",
    "evaluation.num_curve_samples=1",
    "evaluation.max_new_tokens=6",
]


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`theirs("--form", "tagged")`: the file that their script writes, in a process that cannot import percasym."""

    def make(*options: str) -> Path:
        folder = tmp_path_factory.mktemp("theirs")
        subprocess.run([sys.executable, "-I", str(SCRIPT), str(folder), "--rows", str(ROWS), *options], check=True, cwd=folder)
        return folder / "discs.jsonl"

    return make


@pytest.fixture(scope="session")
def discs(theirs: Callable[..., Path]) -> Path:
    """Their file with columns."""
    return theirs()


def samples(task: Given) -> list[Sample]:
    """All of them, but for the key's place."""
    keys = [
        SampleKey(task="given", split=split, seed=0, index=index) for split, rows in task.table.items.items() for index in range(len(rows))
    ]
    return [task.sample(key) for key in keys]


def words(sample: Sample) -> list[str]:
    """Those of the reasoning and the answer."""
    return sample.demonstration.reasoning.replace("<answer>", " <answer>").split()


def test_columns_tags_a_boundary_and_pictures_inside_the_rows_are_the_same_data(theirs: Callable[..., Path], discs: Path) -> None:
    wanted = samples(Given(path=str(discs)))
    assert len(wanted) == ROWS
    others = (Given(path=str(theirs("--form", "tagged"))), Given(path=str(theirs("--form", "plain")), boundary=r"\nReasoning:"))
    for task in (*others, Given(path=str(theirs("--inline")))):
        for ours, same in zip(wanted, samples(task), strict=True):
            assert (ours.prompt, ours.truth, ours.solution) == (same.prompt, same.truth, same.solution)
            assert words(ours) == words(same)


def test_audit_training_and_report_follow_the_readme(
    command, blank: Path, discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = ["task=jsonl", f"task.path={discs}", "scale=smoke", f"model.path={blank}"]
    assert cli.main(["audit", *data, "--samples", "4"]) == 0
    output = capsys.readouterr().out
    assert "train_sft" in output
    assert "weight of NGDiff" in output
    assert "a blind guess" in output, "the loss of a blank model is above that of a uniform guess"
    for balance in ("none", "ngdiff"):
        answer = command(*data, *FEW, "engine=torch", "study=mine", f"balance={balance}")
        assert answer.code == 0, answer.err
    assert cli.main(["report", "multirun/mine"]) == 0
    assert "end to end" in capsys.readouterr().out
    page = (tmp_path / "multirun" / "mine" / "report" / "report.html").read_text()
    assert 'width="100" height="80"' in page, "80 x 64 pixels, in proportion"
    assert page.count("How many discs are there?") == 2 * 3, "three test samples of two cells"
    assert "jsonl-qwen3vl-sft-ngdiff-smoke" in page
    about = json.loads((tmp_path / "multirun/mine/jsonl-qwen3vl-sft-none-smoke/seed0/meta.json").read_text())["data"]
    assert sum(about["rows"].values()) == ROWS


def test_reinforcement_learning_without_labels_says_what_its_rewards_are_worth(command, blank: Path, discs: Path, tmp_path: Path) -> None:
    data = ["task=jsonl", f"task.path={discs}", "scale=smoke", f"model.path={blank}", "paradigm=rl", "balance=fixed", "balance.weight=0.3"]
    refused = command(*data, "reward=rerender")
    assert refused.code == 2
    assert refused.err.startswith("reward=rerender needs a task that can draw a percept; collected data cannot. Choose among oracle, ")
    answer = command(*data, *FEW, "engine=torch", "study=paid", "reward=consensus", "paradigm.group_size=3", "paradigm.micro_batch_size=2")
    assert answer.code == 0, answer.err
    assert cli.main(["report", "multirun/paid"]) == 0
    page = (tmp_path / "multirun" / "paid" / "report" / "report.html").read_text()
    assert "Rewards of the rollouts" in page
    assert '<th scope="row">consensus</th>' in page
    assert '<th scope="row">rerender</th>' not in page, "nobody can draw these percepts"


def test_a_bad_row_in_the_middle_is_named_or_left_out(discs: Path, blank: Path, capsys: pytest.CaptureFixture) -> None:
    rows = discs.read_text().splitlines()
    rows[19] = rows[19].replace('"perception"', '"percept"')
    bad = discs.with_name("bad.jsonl")
    bad.write_text("\n".join(rows))
    words = ["audit", "task=jsonl", f"task.path={bad}", "scale=smoke", f"model.path={blank}", "--samples", "2"]
    assert cli.main(words) == 2
    output = capsys.readouterr().err
    assert output.startswith(f"{bad}, line 20: it has no column perception; its columns are image, query, percept, reasoning, answer.")
    assert output.count("\n") == 1
    assert cli.main([*words, "task.on_error=skip"]) == 0, "behind an option, too"
    assert f"rows, 1 skipped ({bad}, line 20: it has no column perception" in capsys.readouterr().out


def test_their_rows_can_be_exported_and_are_the_same_again(discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    number = len(Given(path=str(discs)).table.items["test"])
    words = ["export", "task=jsonl", f"task.path={discs}", "--split", "test", "--out", str(tmp_path)]
    assert cli.main([*words, "--num", str(number)]) == 0
    back = samples(Given(path=str(tmp_path / "test.jsonl")))
    ours = [sample for sample in samples(Given(path=str(discs))) if sample.prompt.key.split == "test"]
    contents = [sorted((one.prompt.image, one.truth, one.solution, one.demonstration.reasoning) for one in side) for side in (ours, back)]
    assert contents[0] == contents[1]
    capsys.readouterr()
    assert cli.main([*words[:-1], str(tmp_path / "more"), "--num", str(number + 1)]) == 2
    assert f"and --num={number + 1} would repeat some. Ask for at most {number}." in capsys.readouterr().err
