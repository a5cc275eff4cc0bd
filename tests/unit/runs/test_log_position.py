"""metrics.jsonl is truncated to the position recorded in the checkpoint, also in one copied from another run."""

import json
from pathlib import Path

from percasym.runs.checkpoint import DONE
from percasym.runs.rundir import LogPosition, truncate_metrics

LINES = [{"step": 0}, {"step": 1}, {"step": 2}, {"step": 2}]  # 12 bytes each, the end of the line included.


def metrics(path: Path, more: str = "") -> Path:
    file = path / "metrics.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES) + more)
    return file


def steps(file: Path) -> list[int]:
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def test_a_checkpoint_says_how_far_its_run_was(tmp_path: Path) -> None:
    position = LogPosition(step=2, num_bytes=36, num_lines=3, identity="abcd1234")
    (tmp_path / DONE).write_text(position.note())
    assert LogPosition.read(tmp_path, 2) == position


def test_a_checkpoint_that_holds_a_length_alone_is_read(tmp_path: Path) -> None:
    (tmp_path / DONE).write_text("36")
    position = LogPosition.read(tmp_path, 2)
    assert position == LogPosition(step=2, num_bytes=36)
    assert truncate_metrics(metrics(tmp_path), position) == 3


def test_lines_after_the_checkpoint_are_cut_also_those_of_its_step(tmp_path: Path) -> None:
    file = metrics(tmp_path, more='{"step": 3, "lo')
    assert truncate_metrics(file, LogPosition(step=2, num_bytes=36, num_lines=3)) == 3
    assert steps(file) == [0, 1, 2]


def test_without_a_checkpoint_no_line_is_kept(tmp_path: Path) -> None:
    file = metrics(tmp_path)
    assert truncate_metrics(file, LogPosition(step=-1)) == 0
    assert file.read_text() == ""
    assert truncate_metrics(tmp_path / "none.jsonl", LogPosition(step=-1)) == 0


def test_a_checkpoint_of_another_run_cuts_whole_lines_and_none_of_its_own_steps(tmp_path: Path) -> None:
    # That run had logged 40 bytes in 5 lines by step 1; here they end inside the fourth line, and steps go beyond it.
    file = metrics(tmp_path)
    assert truncate_metrics(file, LogPosition(step=1, num_bytes=40, num_lines=5)) == 5
    assert steps(file) == [0, 1]
