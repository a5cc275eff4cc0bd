"""Recorded rollouts are read back as the same types, and an invalid record is named by file, line and key."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from percasym.diagnosis.rollout_file import RolloutGroup, latest_rollouts, read_rollouts, record_group, write_rollouts
from percasym.runs.records import write_lines
from percasym.runs.rundir import RunDirectory
from percasym.types import Completion


def test_what_was_written_is_read(groups: list[RolloutGroup], tmp_path: Path) -> None:
    write_rollouts(tmp_path / "x.jsonl", groups)
    assert read_rollouts(tmp_path / "x.jsonl") == groups


def test_what_was_not_measured_stays_so(groups: list[RolloutGroup], tmp_path: Path) -> None:
    first = groups[0]
    silent = replace(first.rollouts[0], prompt=replace(first.rollouts[0].prompt, image=None))
    silent = replace(silent, completion=Completion(ids=silent.completion.ids, logprobs=None, finished=False))
    bare = RolloutGroup(
        truth="",
        puzzle="row 3",
        rollouts=(silent,),
        grades=first.grades[:1],
        rewards={},
        labelled=frozenset(),
        advantages=None,
        reasoning=None,
    )
    write_rollouts(tmp_path / "x.jsonl", [bare])
    assert read_rollouts(tmp_path / "x.jsonl") == [bare]


def test_a_file_of_an_earlier_revision_tells_puzzles_by_question_and_percept(groups: list[RolloutGroup], tmp_path: Path) -> None:
    write_lines(tmp_path / "x.jsonl", ({k: v for k, v in record_group(group).items() if k != "puzzle"} for group in groups[:2]))
    found = read_rollouts(tmp_path / "x.jsonl")
    assert [group.puzzle for group in found] == [f"{group.rollouts[0].prompt.question}\n{group.truth}" for group in groups[:2]]


def test_a_run_records_the_same_lines(groups: list[RolloutGroup], tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path / "run", {})
    run.samples("rollouts", 10, map(record_group, groups[:1]))
    run.samples("rollouts", 200, map(record_group, groups))
    run.samples("test", 300, [{}])
    assert read_rollouts(latest_rollouts(run.path)) == groups


def test_log_probabilities_keep_six_decimals(groups: list[RolloutGroup], tmp_path: Path) -> None:
    first = groups[0].rollouts[0]
    long = replace(first, completion=replace(first.completion, logprobs=(-0.12345678901, -1.0, -2.0, -3.0)))
    write_rollouts(tmp_path / "x.jsonl", [replace(groups[0], rollouts=(long, *groups[0].rollouts[1:]))])
    assert read_rollouts(tmp_path / "x.jsonl")[0].rollouts[0].completion.logprobs == (-0.123457, -1.0, -2.0, -3.0)


def test_a_file_is_its_own_latest(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").touch()
    assert latest_rollouts(tmp_path / "mine.jsonl") == tmp_path / "mine.jsonl"


def test_a_folder_without_rollouts_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no run that recorded some .* Sample them with `percasym rollouts`, or train with paradigm=rl"
    ):
        latest_rollouts(tmp_path)


def change(*path: str | int, to: object) -> Callable[[dict], None]:
    def apply(record: dict) -> None:
        for step in path[:-1]:
            record = record[step]
        record[path[-1]] = to

    return apply


WRONG = {
    "key of another type": (change("key", "index", to="7"), "key.index must be a whole number, got '7'."),
    "no truth": (lambda record: record.pop("truth"), "truth is missing."),
    "no rollouts": (change("rollouts", to=[]), "rollouts is empty; a group has at least one."),
    "rollouts of no list": (change("rollouts", to=3), "rollouts must be a list, got 3."),
    "a rollout that is none": (change("rollouts", 1, to="x"), r"rollouts\[1\] must be a group of values, got 'x'."),
    "text among ids": (change("rollouts", 0, "ids", 2, to="x"), r"rollouts\[0\].ids\[2\] must be a whole number, got 'x'."),
    "a label too few": (
        change("rollouts", 0, "labels", to=[0, 0, 1]),
        r"rollouts\[0\].labels must have one value for each of 4 ids, got 3.",
    ),
    "no such span": (change("rollouts", 0, "labels", 0, to=5), r"rollouts\[0\].labels must be 0 \(perception\) or 1 \(reasoning\), got 5."),
    "a log-probability of null": (
        change("rollouts", 0, "logprobs", 1, to=None),
        r"rollouts\[0\].logprobs\[1\] must be a number, got None.",
    ),
    "no such fault": (change("rollouts", 0, "faults", to=["lazy"]), r"rollouts\[0\].faults has no fault 'lazy'; the faults are not_text, "),
    "a verdict that is no verdict": (
        change("rollouts", 2, "grades", "outcome", to=1),
        r"rollouts\[2\].grades.outcome must be true or false, got 1.",
    ),
    "no grades": (change("rollouts", 2, "grades", to=None), r"rollouts\[2\].grades must be a group of values, got None."),
    "a score in words": (
        change("rollouts", 0, "rewards", "oracle", to="good"),
        r"rollouts\[0\].rewards.oracle must be a number or null, got 'good'",
    ),
    "rewards of no mapping": (change("rollouts", 0, "rewards", to=[1]), r"rollouts\[0\].rewards must map names to scores, got \[1\]."),
    "rewards of some siblings": (
        change("rollouts", 3, "rewards", to={"oracle": 1}),
        r"rollouts\[3\].rewards names \['oracle'\], and rollouts\[0\]",
    ),
    "an advantage too few": (change("rollouts", 1, "advantage", to=None), r"rollouts\[1\].advantage is null, and others are not."),
    "a label of no reward": (change("labelled", to=["orcale"]), "labelled names 'orcale', which is none of the rewards"),
    "a picture that is none": (change("image", to="%%%"), "image must be a PNG in base64 or null, got '%%%'."),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_bad_record_is_named(name: str, groups: list[RolloutGroup], tmp_path: Path) -> None:
    spoil, sentence = WRONG[name]
    path = tmp_path / "x.jsonl"
    write_rollouts(path, groups[:2])
    lines = path.read_text().splitlines()
    record = json.loads(lines[1])
    spoil(record)
    path.write_text(f"{lines[0]}\n{json.dumps(record)}\n")
    with pytest.raises(ValueError, match=r"^Line 2 of .*x\.jsonl is no group of rollouts: " + sentence):
        read_rollouts(path)


def test_other_rewards_on_another_line_are_refused(groups: list[RolloutGroup], tmp_path: Path) -> None:
    write_rollouts(tmp_path / "x.jsonl", [groups[0], replace(groups[1], rewards={"oracle": groups[1].rewards["oracle"]})])
    with pytest.raises(ValueError, match=r"Line 2 of .* has the rewards \['oracle'\], and line 1 has "):
        read_rollouts(tmp_path / "x.jsonl")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").touch()
    with pytest.raises(ValueError, match="holds no rollouts"):
        read_rollouts(tmp_path / "x.jsonl")


def test_a_group_counts_its_parts(groups: list[RolloutGroup]) -> None:
    with pytest.raises(ValueError, match=r"rewards.oracle must have one value for each of 8 rollouts, got 1."):
        replace(groups[0], rewards={"oracle": (1.0,)})
