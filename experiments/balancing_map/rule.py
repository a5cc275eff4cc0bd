"""Derive from the first six settings of the map when balancing pays, and test it on the others.

    python experiments/balancing_map/rule.py      (reads results/pairs.csv; writes rule.json and rule.svg beside it)

The protocol is in README.md. Intervals of a rank correlation: Bonett and Wright (2000), from the normal quantile.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from scipy.stats import rankdata, spearmanr

from percasym.report.style import FAINT, INK, PERCEPTION, REASONING, canvas, dress
from percasym.statistics import Z95

RESULTS = Path(__file__).parent / "results"
KNOWN = ("share_tokens", "share_loss", "share_gradient", "before_a", "before_a_p", "before_a_r", "coupling", "steps")
"""What is known before training."""
Pair = Mapping[str, Any]


TIMES = " x "
CANDIDATES = tuple(TIMES.join(names) for size in (1, 2) for names in combinations(KNOWN, size))
"""The numbers that a rule may use: each of `KNOWN`, and each product of two."""


def value(name: str, pair: Pair) -> float:
    """A candidate's number for a pair."""
    return math.prod(float(pair[factor]) for factor in name.split(TIMES))


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Spearman's r with its 95 % interval.

    >>> {name: round(value, 2) for name, value in rank_correlation([1, 2, 3, 4, 5, 6], [1, 3, 2, 5, 4, 6]).items()}
    {'r': 0.89, 'low': 0.07, 'high': 0.99}
    """
    r = float(spearmanr(x, y).statistic)
    reach = Z95 * math.sqrt((1 + r * r / 2) / (len(x) - 3))
    centre = math.atanh(min(max(r, -1 + 1e-9), 1 - 1e-9))
    return {"r": r, "low": math.tanh(centre - reach), "high": math.tanh(centre + reach)}


def derived(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The candidate that orders the changes of a best, and the line through them by least squares."""
    changes = [pair["change_a"] for pair in pairs]
    found = {name: rank_correlation([value(name, pair) for pair in pairs], changes)["r"] for name in CANDIDATES}
    name = max(found, key=lambda one: abs(found[one]))
    slope, offset = np.polyfit([value(name, pair) for pair in pairs], changes, 1)
    best = sorted(found, key=lambda one: -abs(found[one]))[:6]
    chance = by_chance(pairs, abs(found[name]))
    return {"x": name, "slope": float(slope), "offset": float(offset), "next": {one: found[one] for one in best}, "chance": chance}


def by_chance(pairs: Sequence[Pair], largest: float, draws: int = 2000) -> dict[str, float]:
    """Median of the largest correlation of all candidates where the changes of a belong to other pairs, and p of `largest`."""
    ranks = np.array([rankdata([value(name, pair) for pair in pairs]) for name in CANDIDATES])
    ranks = (ranks - ranks.mean(1, keepdims=True)) / ranks.std(1, keepdims=True)
    changes = rankdata([pair["change_a"] for pair in pairs])
    changes = (changes - changes.mean()) / changes.std()
    random = np.random.default_rng(0)
    found = np.array([np.abs(ranks @ random.permutation(changes)).max() / len(pairs) for _ in range(draws)])
    return {"median": float(np.median(found)), "p": float((1 + (found >= largest - 1e-9).sum()) / (1 + draws))}


def predict(rule: Mapping[str, Any], pair: Pair) -> float:
    """The change of a that the rule expects."""
    return float(rule["offset"] + rule["slope"] * value(rule["x"], pair))


def tested(rule: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, Any]:
    """How well the rule orders these pairs, and how often it, always balancing and never balancing name the sign of the change."""
    predicted = [predict(rule, pair) for pair in pairs]
    clear = [pair["change_a_low"] > 0 or pair["change_a_high"] < 0 for pair in pairs]
    signs = [pair["change_a"] > 0 for pair in pairs]
    hits = [(change > 0) == sign for change, sign in zip(predicted, signs, strict=True)]
    return {
        "n": len(pairs),
        "spearman": rank_correlation(predicted, [pair["change_a"] for pair in pairs]),
        "hits": sum(hits),
        "hits_always": sum(signs),
        "hits_never": len(signs) - sum(signs),
        "clear": sum(clear),
        "hits_clear": sum(hit for hit, one in zip(hits, clear, strict=True) if one),
        "hits_clear_always": sum(sign for sign, one in zip(signs, clear, strict=True) if one),
        "hits_clear_never": sum(not sign for sign, one in zip(signs, clear, strict=True) if one),
    }


def shares_explain(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """C2: each share against gain(a_r) - gain(a_p) under `none`."""
    gaps = [(pair["none_a_r"] - pair["before_a_r"]) - (pair["none_a_p"] - pair["before_a_p"]) for pair in pairs]
    return {name: rank_correlation([pair[name] for pair in pairs], gaps) for name in KNOWN if name != "steps"}


def accounted(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The change of a computed from a_p and a_r after training, beside the measured one.

    With q, a where the percept is wrong: a = a_p a_r + (1 - a_p) q. q is that of the base: a - a_p coupling, before training.
    """
    computed, misread = [], {}
    for pair in pairs:
        q = pair["before_a"] - pair["before_a_p"] * pair["coupling"]
        misread.setdefault(pair["task"], []).append(q)
        none, ngdiff = (pair[f"{side}_a_p"] * (pair[f"{side}_a_r"] - q) for side in ("none", "ngdiff"))
        computed.append(ngdiff - none)
    measured = [pair["change_a"] for pair in pairs]
    errors = [abs(one - other) for one, other in zip(computed, measured, strict=True)]
    same = sum((one > 0) == (other > 0) for one, other in zip(computed, measured, strict=True))
    return {
        "r": float(np.corrcoef(computed, measured)[0, 1]),
        "error": float(np.mean(errors)),
        "size": float(np.mean(np.abs(measured))),
        "same_sign": same,
        "q": {task: [min(values), max(values)] for task, values in misread.items()},
    }


def draw(rule: Mapping[str, Any], pairs: Sequence[Pair], path: Path) -> None:
    """Predicted and measured change of a, in points: pairs that made the rule are hollow."""
    with rc_context({"svg.hashsalt": "percasym"}), canvas(1, panel=(6.6, 4.6)) as (figure, (axes,)):
        dress(axes, "ngdiff - none in a, points", grid="both")
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.axvline(0, color=INK, linewidth=0.8)
        for pair in pairs:
            x = 100 * predict(rule, pair)
            y, low, high = (100 * pair[f"change_a{end}"] for end in ("", "_low", "_high"))
            colour = PERCEPTION if pair["task"] == "Sudoku" else REASONING
            axes.plot([x, x], [low, high], color=FAINT, linewidth=1.5, zorder=1)
            marker = "o" if pair["model"] == "InternVL35" else "s"
            axes.plot([x], [y], marker, color=colour, markerfacecolor="white" if pair["role"] == "makes" else colour, markersize=7)
        axes.set_xlabel("predicted before training")
        axes.set_ylabel("measured")
        figure.savefig(path, metadata={"Date": None})


def read(path: Path = RESULTS / "pairs.csv") -> list[Pair]:
    """The rows of pairs.csv, with numbers in place of texts."""
    texts = {"task", "model", "givens_or_nodes", "role"}
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: text if name in texts else float(text) if "." in text else int(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def main() -> None:
    """Write rule.json and rule.svg."""
    pairs = read()
    first, others = ([pair for pair in pairs if pair["role"] == role] for role in ("makes", "tests"))
    rule = derived(first)
    found = {"rule": rule, "made_from": tested(rule, first), "test": tested(rule, others), "c2": shares_explain(pairs), "n": len(pairs)}
    steps = [pair["steps"] for pair in first]
    found["test_within"] = tested(rule, [pair for pair in others if min(steps) <= pair["steps"] <= max(steps)])
    found["accounted"] = accounted(pairs)
    (RESULTS / "rule.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(rule, pairs, RESULTS / "rule.svg")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
