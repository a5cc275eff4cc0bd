"""docs/metrics.md defines every number that a run writes."""

import re
from dataclasses import fields
from pathlib import Path

from percasym.balance.base import Gramian, SpanStats
from percasym.report.load import METRICS
from percasym.trainers.shares import Share, measurements

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
DEFINED = {key for row in re.findall(r"^\| (`.*?) \|", PAGE, flags=re.MULTILINE) for key in re.findall(r"`([^`]+)`", row)}


def test_exactly_the_numbers_that_a_run_writes_are_defined() -> None:
    gramian = Gramian(perception=1.0, reasoning=4.0, cross=0.5)
    stats = SpanStats(step=0, num_steps=1, counts=(3, 97), losses=(1.0, 0.5), gramian=gramian)
    logged = {*measurements(stats, 0.5), "grad/norm", "lr", "time/step_seconds", "tokens_per_second"}
    summarised = {*METRICS, *(field.name for field in fields(Share))}
    assert logged | summarised == DEFINED
