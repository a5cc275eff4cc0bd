"""Samples as rows of a table."""

import io
from base64 import b64decode
from typing import Any

from PIL import Image

from percasym.runs.trackers import MAX_ROWS, sample_table


def rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = sample_table(records)
    return [dict(zip(made.columns, row, strict=True)) for row in made.rows]


def test_an_evaluated_sample_is_one_row(evaluated: dict[str, Any]) -> None:
    (row,) = rows([evaluated])
    assert Image.open(io.BytesIO(row.pop("picture"))).size == (2, 3)
    assert row == {
        "sample": 7, "question": "What is there?", "p*": "12", "stated percept": "13", "a_p": False, "a_p graded": 0.5,
        "reasoning": "so 4", "answer": "14", "faithful": True, "faults": "truncated", "a": False, "a_r": True,
    }  # fmt: skip


def test_a_sample_whose_picture_was_not_kept_is_a_row_without_one(evaluated: dict[str, Any]) -> None:
    (row,) = rows([evaluated | {"image": None}])
    assert row["picture"] is None


def test_each_sibling_is_a_row_with_its_rewards_and_its_advantage(picture: str) -> None:
    response = {"percept": None, "reasoning": "", "answer": None, "faults": ["no_perception", "no_answer"]}
    grades = {"perception": False, "perception_graded": 0.0, "outcome": False, "faithful": None, "faults": response["faults"]}
    siblings = [
        response | {"grades": grades, "rewards": {"oracle": reward, "consensus": None}, "advantage": reward - 0.5} for reward in (0.0, 1.0)
    ]
    group = {"key": {"index": 3}, "truth": "12", "question": "?", "image": picture, "rollouts": siblings}
    first, second = rows([group])
    assert (first["sample"], first["a"], first["faults"]) == (3, False, "no_perception, no_answer")
    assert (second["reward/oracle"], second["reward/consensus"], second["advantage"]) == (1.0, None, 0.5)
    assert b64decode(picture) == first["picture"] == second["picture"]


def test_sampled_answers_to_a_prompt_are_one_row_of_shares() -> None:
    grades = {"sampled_end_to_end": 0.25, "sampled_perception": 0.5, "sampled_reasoning": None}
    record = {"key": {"index": 4}, "truth": "12", "puzzle": "12", "verdicts": {"end_to_end": [0, 0, 0, 1]}, "grades": grades}
    (row,) = rows([record])
    shares = {"end_to_end": 0.25, "perception": 0.5, "reasoning": None}
    assert row == {"sample": 4, "picture": None, "question": None, "p*": "12", **shares}


def test_a_table_has_an_end(evaluated: dict[str, Any]) -> None:
    assert len(sample_table([evaluated] * 1000).rows) == MAX_ROWS
    assert sample_table([]).rows == []
