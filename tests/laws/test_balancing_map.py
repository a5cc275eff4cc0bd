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


def of_families(random_: random.Random, number: int) -> list[dict[str, Any]]:
    """Pairs of both families in so many settings."""
    names = {"task": "Sudoku", "verbosity": 4, "noise": 0.06}
    settings = [names | {"givens_or_nodes": f"{n}", "steps": random_.random()} for n in range(number)]
    return [pair(random_) | setting | {"model": model} for setting in settings for model in ("A", "B")]


def test_a_rule_that_is_there_is_found_and_its_hits_are_counted() -> None:
    random_ = random.Random(0)
    rule = RULE["derived"](of_families(random_, 6))
    assert rule["x"] == "before_a_r x coupling"
    assert (rule["slope"], rule["offset"]) == pytest.approx((1, -0.2))
    paid, lost = pair(random_, coupling=0.9, before_a_r=0.9), pair(random_, coupling=0.1, before_a_r=0.1)
    near = pair(random_, coupling=0.5, before_a_r=0.38)
    found = RULE["tested"](rule, [paid, lost, lost, near])
    assert (found["n"], found["hits"], found["hits_always"]) == (4, 4, 1)
    assert (found["clear"], found["hits_clear"], found["hits_clear_always"]) == (3, 3, 1)
    assert (found["hits_never"], found["hits_clear_never"]) == (3, 2)
    assert found["spearman"] == pytest.approx(1)
    assert rule["chance"]["p"] <= 1 / 300 < 0.3 < rule["chance"]["median"] < 0.95


def test_a_setting_moves_as_a_whole_so_five_settings_leave_120_orders() -> None:
    random_ = random.Random(1)
    rule = {"x": "before_a_r x coupling", "slope": 1.0, "offset": -0.2}
    pairs = of_families(random_, 5)
    assert RULE["p_of_order"](rule, pairs) == pytest.approx(1 / 120)
    assert RULE["p_of_order"](rule, [*pairs, pair(random_) | pairs[0] | {"givens_or_nodes": "alone"}]) == pytest.approx(1 / 120)
    against = [one | {"change_a": -one["change_a"]} for one in pairs]
    assert RULE["p_of_order"](rule, against) > 0.9


def test_a_rule_that_is_right_where_always_balancing_is_is_not_better() -> None:
    p = RULE["against_always"]
    assert p([True] * 6, [True] * 6) == 1
    assert p([True] * 6, [False] * 6) == pytest.approx(2 / 2**6)


def test_an_interval_of_a_rank_correlation_resamples_settings_and_needs_ten() -> None:
    values = [float(n) for n in range(20)]
    settings = [[n, n + 1] for n in range(0, 20, 2)]
    found = RULE["with_interval"](values, values, settings)
    assert found["r"] == pytest.approx(1) and found["low"] == pytest.approx(1)
    assert RULE["with_interval"](values, values, settings[:9]) == {"r": pytest.approx(1)}
    noise = random.Random(2).sample(values, 20)
    wide = RULE["with_interval"](values, noise, settings)
    assert wide["low"] < wide["r"] < wide["high"] and wide["high"] - wide["low"] > 0.3


def test_pairs_are_counted_by_what_gained_more_and_by_changes_clear_of_0() -> None:
    def one(gained_a_p: float, gained_a_r: float, before_a_p: float, change: float) -> dict[str, Any]:
        before = {"before_a_p": before_a_p, "before_a_r": 0.5}
        after = {"none_a_p": before_a_p + gained_a_p, "none_a_r": 0.5 + gained_a_r}
        return before | after | {"change_a_low": change - 0.05, "change_a_high": change + 0.05}

    found = RULE["counted"]([one(0.1, 0.3, 0.4, 0.1), one(0.2, 0.1, 0.4, -0.1), one(0.1, 0.2, 0.6, 0.0)])
    assert found == {"more": 2, "less": 1, "sees_no_better": 2, "sees_no_better_more": 1, "rose": 1, "fell": 1}


def test_changes_of_a_are_accounted_for_where_they_follow_from_perception_and_reasoning() -> None:
    def one(task: str, gained: float) -> dict[str, Any]:
        q, a_p, a_r = 0.1, 0.5, 0.8
        after = {"none_a_p": a_p, "none_a_r": a_r, "ngdiff_a_p": a_p + gained, "ngdiff_a_r": a_r}
        before = {"before_a": q + a_p * 0.6, "before_a_p": a_p, "coupling": 0.6}
        return {"task": task, "change_a": gained * (a_r - q)} | after | before

    found = RULE["accounted"]([one("Sudoku", gained) for gained in (0.1, -0.1, 0.2)] + [one("GraphColoring", 0.05) | {"change_a": -0.01}])
    assert found["same_sign"] == {"Sudoku": [3, 3], "GraphColoring": [0, 1]}
    assert found["q"] == {"Sudoku": [pytest.approx(0.1)] * 2, "GraphColoring": [pytest.approx(0.1)] * 2}
    assert found["error"] == pytest.approx((0.05 * 0.7 + 0.01) / 4)


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
