"""Samples that a run keeps, as a table to look through: the picture, what was seen in it, thought and answered, and the verdicts.

Two kinds of records are known: those of an evaluation (one row each, the answer to the picture) and groups of rollouts (a row for each
sibling, with what every reward paid and the advantage that training made of it).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

MAX_ROWS = 32
"""Of one table: with a picture of about 8 kB in each, a quarter of a megabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable:
    """Columns, and rows as long as these; a picture is PNG bytes, what is missing is None."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def table(records: Iterable[Mapping[str, Any]]) -> SampleTable:
    """The first `MAX_ROWS` rows of the records of one `samples/<split>_<step>.jsonl`."""
    found = list(islice((row for record in records for row in _rows(record)), MAX_ROWS))
    columns = tuple(dict.fromkeys(name for row in found for name in row))
    return SampleTable(columns=columns, rows=[[row.get(name) for name in columns] for row in found])


def _rows(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    asked = {
        "sample": record["key"]["index"],
        "picture": b64decode(record["image"]) if record["image"] else None,
        "question": record.get("question"),
        "p*": record["truth"],
    }
    if "rollouts" not in record:
        verdicts, faults = record["grades"], record["faults"]["image"]
        told = {"a": verdicts["end_to_end"], "a_r": verdicts["reasoning"]}
        yield asked | _said(record["responses"]["image"], verdicts, faults) | told
        return
    for rollout in record["rollouts"]:
        paid = {f"reward/{name}": score for name, score in rollout["rewards"].items()}
        told = {"a": rollout["grades"]["outcome"], **paid, "advantage": rollout["advantage"]}
        yield asked | _said(rollout, rollout["grades"], rollout["faults"]) | told


def _said(response: Mapping[str, Any], verdicts: Mapping[str, Any], faults: Sequence[str]) -> dict[str, Any]:
    return {
        "stated percept": response["percept"],
        "a_p": verdicts["perception"],
        "a_p graded": verdicts["perception_graded"],
        "reasoning": response["reasoning"],
        "answer": response["answer"],
        "faithful": verdicts["faithful"],
        "faults": ", ".join(faults),
    }
