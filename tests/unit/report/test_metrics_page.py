"""docs/metrics.md defines every number that a run writes."""

import re
from dataclasses import fields
from pathlib import Path

from percasym.balance.base import Gramian, SpanStats
from percasym.diagnosis.stream import reward_statistics, weighted_rewards
from percasym.report.load import CONTRIBUTIONS, METRICS, SAMPLED
from percasym.training.span_gradients import Share, step_metrics
from percasym.types import Grade

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
DEFINED = {key for row in re.findall(r"^\| (`.*?) \|", PAGE, flags=re.MULTILINE) for key in re.findall(r"`([^`]+)`", row)}


def rewarded() -> set[str]:
    """What a step logs of its rewards; outcome, perception and total are names like any other."""
    outcomes = [(False, False), (True, True), (True, True), (True, True)]  # (a_p, a) of two prompts of two rollouts
    grades = [Grade(perception=seen, perception_graded=1.0, outcome=right, faithful=right, faults=()) for seen, right in outcomes]
    groups, scores = [grades[:2], grades[2:]], [[0.1, 0.5], [0.9, 0.6]]
    numbers = reward_statistics(groups, {"<name>": scores}, total=scores, reasoning=[0.0, 1.0])
    return {re.sub("^reward/[a-z]+/", "reward/<name>/", key) for key in numbers}


def test_exactly_the_numbers_that_a_run_writes_are_defined() -> None:
    gramian = Gramian(perception=1.0, reasoning=4.0, cross=0.5)
    stats = SpanStats(step=0, num_steps=1, counts=(3, 97), losses=(1.0, 0.5), hidden=(0.2, 0.1), gramian=gramian)
    logged = {*step_metrics(stats, 0.5), "grad/norm", "lr", "time/step_seconds", "tokens_per_second", *rewarded()}
    logged |= {"loss/policy", "policy/clipped", "policy/drift", "policy/kl", "policy/importance", "policy/truncated"}
    logged |= {"loss/policy/first", "policy/clipped/first", "policy/drift/first", "policy/kl/first", "policy/importance/first"}
    logged |= {"policy/truncated/first", "policy/mismatch", "rollouts/taught", "tokens/gain"}
    logged |= set(weighted_rewards([[0, 1]], [[1, 1]], 0.3))
    logged |= {
        "rollouts/resampled",
        "time/rollout_seconds",
        "time/reward_seconds",
        "time/update_seconds",
    }  # tests/integration/test_rl.py holds a run against the page.
    summarised = {*METRICS, *CONTRIBUTIONS, *SAMPLED, *(field.name for field in fields(Share))}
    summarised |= {"groups", "taught", "mismatch_max", "rollout_seconds", "reward_seconds", "update_seconds"}
    assert logged | summarised == DEFINED
