"""The scripts of experiments/balancing_map: which settings make the rule, and that they find one that is there."""

from __future__ import annotations

import json
import random
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from percasym.config.resolve import composed
from percasym.training import audit

ROOT = Path(__file__).resolve().parents[2]
PAIRS, RULE = (runpy.run_path(str(ROOT / f"experiments/balancing_map/{name}.py")) for name in ("pairs", "rule"))
STUDY = yaml.safe_load((ROOT / "conf/experiment/balancing_map.yaml").read_text(encoding="utf-8"))
CELLS = STUDY["hydra"]["sweeper"]["cells"]


def test_the_first_six_settings_of_the_study_make_the_rule_and_no_other() -> None:
    made = []
    for cell in CELLS:
        record = composed([word for word in cell.split() if not word.startswith("model.size")], ROOT / "conf").record
        task = record["task"]
        low, high = task.get("givens") or task["nodes"]
        pair = {
            "task": task["_target_"].rpartition(".")[2],
            "givens_or_nodes": f"{low}-{high}",
            "verbosity": task["verbosity"],
            "steps": record["paradigm"]["steps"],
        }
        made.append(PAIRS["is_first"](pair))
    assert made == [True] * 6 + [False] * 6


def pair(random_: random.Random, **numbers: float) -> dict[str, Any]:
    known = {name: random_.random() for name in RULE["KNOWN"]} | numbers
    change = known["coupling"] * known["before_a_r"] - 0.2
    accuracies = {f"{when}_{name}": random_.random() for when in ("none", "before") for name in ("a_p", "a_r")}
    return accuracies | known | {"change_a": change, "change_a_low": change - 0.05, "change_a_high": change + 0.05}


def test_a_rule_that_is_there_is_found_and_its_hits_are_counted() -> None:
    random_ = random.Random(0)
    rule = RULE["derived"]([pair(random_) for _ in range(12)])
    assert rule["x"] == "before_a_r x coupling"
    assert (rule["slope"], rule["offset"]) == pytest.approx((1, -0.2))
    paid, lost = pair(random_, coupling=0.9, before_a_r=0.9), pair(random_, coupling=0.1, before_a_r=0.1)
    near = pair(random_, coupling=0.5, before_a_r=0.38)
    found = RULE["tested"](rule, [paid, lost, lost, near])
    assert (found["n"], found["hits"], found["hits_always"]) == (4, 4, 1)
    assert (found["clear"], found["hits_clear"], found["hits_clear_always"]) == (3, 3, 1)
    assert (found["hits_never"], found["hits_clear_never"]) == (3, 2)
    assert found["spearman"]["r"] == pytest.approx(1)
    assert rule["chance"]["p"] < 0.01 < 0.3 < rule["chance"]["median"] < 0.9


def test_the_advice_of_an_audit_is_the_rule_that_was_derived() -> None:
    found = json.loads((ROOT / "experiments/balancing_map/results/rule.json").read_text(encoding="utf-8"))
    assert found["rule"]["x"] == "coupling x steps"
    assert pytest.approx(-found["rule"]["offset"] / found["rule"]["slope"], abs=0.1) == audit.THRESHOLD
    assert (found["made_from"]["hits"], found["made_from"]["n"]) == audit.HITS_MADE
    within = found["test_within"]
    assert (within["hits"], within["n"]) == audit.HITS_HELD_OUT
    assert max(within["hits_always"], within["hits_never"]) == audit.HITS_TRIVIAL
    pairs = RULE["read"]()
    steps = [pair["steps"] for pair in pairs if pair["role"] == "makes"]
    assert (min(steps), max(steps)) == audit.STEPS
    shares, a_p, a_r, a = ([100 * pair[name] for pair in pairs] for name in ("share_gradient", "change_a_p", "change_a_r", "change_a"))
    for ends in (
        f"shares of {min(shares):.1f} to {max(shares):.0f} %",
        f"a_p by {min(a_p):.0f} to {max(a_p):.0f} points",
        f"cost {-max(a_r):.0f} to {-min(a_r):.0f} points of a_r",
        f"changed by {min(a):.0f} to {max(a):+.0f} points",
    ):
        assert ends in audit.SEEN, ends
