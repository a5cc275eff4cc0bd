"""`percasym diagnose-rewards`: what it prints, what it writes, and what it refuses."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from percasym.cli.main import main
from percasym.diagnosis.diagnose import diagnose
from percasym.diagnosis.rollout_file import RolloutGroup, record_group, write_rollouts
from percasym.report.rewards import reward_tables, rewards_csv, rewards_markdown, scatter
from percasym.report.style import INK, PERCEPTION, REASONING
from percasym.runs.rundir import RunDirectory

Groups = list[RolloutGroup]


@pytest.fixture
def rollouts(groups: Groups, tmp_path: Path) -> Path:
    write_rollouts(tmp_path / "base.jsonl", groups)
    return tmp_path / "base.jsonl"


def test_a_file_is_diagnosed_in_print_and_beside_it(rollouts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose-rewards", str(rollouts)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for sentence in ("7 rewards on 384 rollouts of 48 prompts", "Train on reward=consensus", "r(a, a_r) = ", "(paper: .34 to .43)"):
        assert sentence in printed
    assert {path.name for path in rollouts.parent.iterdir()} == {"base.jsonl", *(f"base_rewards.{end}" for end in ("png", "md", "csv"))}


def test_a_run_gives_its_last_rollouts_to_another_folder(groups: Groups, tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path / "run", {})
    for step in (0, 10):
        run.samples("rollouts", step, map(record_group, only_consensus(groups[: 8 + step])))
    assert main(["diagnose-rewards", str(run.path), "--out", str(tmp_path / "look" / "here")]) == 0
    assert "on 144 rollouts of 18 prompts" in (tmp_path / "look" / "here" / "rollouts_000010_rewards.md").read_text()


def wrong(rollouts: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["diagnose-rewards", *words]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert not list(rollouts.parent.rglob("*_rewards.*"))
    return printed


def test_what_cannot_be_diagnosed_ends_in_one_sentence(rollouts: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "is no file of rollouts, and no run that recorded some" in wrong(rollouts, capsys, str(tmp_path / "nothing"))
    assert "would hold one diagnosis only" in wrong(rollouts, capsys, str(rollouts), str(rollouts), "--out", str(tmp_path / "out"))
    rollouts.write_text('{"truth": 3}\n')
    assert "Line 1 of " in wrong(rollouts, capsys, str(rollouts))


def test_eighty_columns_hold_both_tables_without_a_cut(groups: Groups) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80)
    for table in reward_tables(diagnose(groups)):
        console.print(table)
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in out.getvalue()
    oracle = [line.split() for line in lines if line.strip().startswith("oracle *")]
    assert oracle[0][:6] == ["oracle", "*", "384", "0%", oracle[0][4], oracle[0][5]]
    assert oracle[1] == ["oracle", "*", *["1.00", "[1.00,", "1.00]"] * 3]


def test_the_readme_table_has_a_row_for_each_reward_and_the_advice(groups: Groups) -> None:
    lines = rewards_markdown(diagnose(groups)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert len(rows) == 2 + 7
    assert next(row for row in rows if "valid_state" in row).split(" | ")[6:] == ["-"] * 8 + ["- |"]
    assert any(line.startswith("Train on reward=consensus") for line in lines)


def test_the_csv_has_every_number_and_leaves_out_what_does_not_exist(groups: Groups) -> None:
    found = diagnose(groups)
    rows = {row["reward"]: row for row in csv.DictReader(io.StringIO(rewards_csv(found)))}
    best = next(reward for reward in found.rewards if reward.name == "consensus")
    assert float(rows["consensus"]["perception_within_r"]) == best.perception.within.r
    assert float(rows["consensus"]["paid_across_high"]) == best.paid.across.ci95[1]
    assert (rows["oracle"]["labelled"], rows["consensus"]["labelled"]) == ("true", "false")
    assert (rows["valid_state"]["zero_variance"], rows["valid_state"]["outcome_pooled_r"]) == ("1.0", "")
    assert not re.search("nan|None", rewards_csv(found))


@pytest.mark.parametrize("num_rewards", [1, 3])
def test_the_figure_shows_rollouts_means_and_lines(num_rewards: int, make_groups: Callable[..., Groups], tmp_path: Path) -> None:
    names = ("consensus", "valid_state", "blindfold_solver")[:num_rewards]
    groups = [replace(group, rewards={name: group.rewards[name] for name in names}, labelled=frozenset()) for group in make_groups(12, 4)]
    found = diagnose(groups)
    with Image.open(scatter(groups, found, tmp_path / "x.png")) as picture:
        assert picture.width >= 900
        counted = picture.convert("RGB").getcolors(maxcolors=1 << 20)
    common = [colour for count, colour in counted if count > 50]
    rollout = tuple(255 - 0.3 * (255 - channel) for channel in rgb(PERCEPTION))  # Points are see-through, on white.
    for wanted in (rgb(INK), rgb(REASONING), rollout):
        assert any(max(abs(a - b) for a, b in zip(wanted, colour, strict=True)) <= 2 for colour in common)
    first = (tmp_path / "x.png").read_bytes()
    assert scatter(groups, found, tmp_path / "x.png").read_bytes() == first, "the jitter is the same each time"


def only_consensus(groups: Groups) -> Groups:
    return [replace(group, rewards={"consensus": group.rewards["consensus"]}, labelled=frozenset()) for group in groups]


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[start : start + 2], 16) for start in (1, 3, 5))
