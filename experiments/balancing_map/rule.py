"""Derive from the first six settings of the map when balancing pays, and test it on the others.

    python experiments/balancing_map/rule.py      (reads results/pairs.csv; writes rule.json and rule.svg beside it)

The protocol is in README.md. Pairs of one setting are not independent: the two families share task, puzzles and steps. So intervals
resample settings, and a permutation test moves the changes of whole settings.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import binomtest, rankdata, spearmanr

from percasym.report.style import FAINT, INK, PERCEPTION, REASONING, canvas, dress

RESULTS = Path(__file__).parent / "results"
KNOWN = ("share_tokens", "share_loss", "share_gradient", "before_a", "before_a_p", "before_a_r", "coupling", "steps")
"""What is known before training."""
SETTING = ("task", "givens_or_nodes", "verbosity", "noise", "steps")
"""What the pairs of one setting share."""
FAMILIES = 2
MIN_SETTINGS = 10
"""Settings from which on a bootstrap over them is given (our choice)."""
Pair = Mapping[str, Any]

TIMES = " x "
CANDIDATES = tuple(TIMES.join(names) for size in (1, 2) for names in combinations(KNOWN, size))
"""The numbers that a rule may use: each of `KNOWN`, and each product of two."""


def value(name: str, pair: Pair) -> float:
    """A candidate's number for a pair."""
    return math.prod(float(pair[factor]) for factor in name.split(TIMES))


def of_settings(pairs: Sequence[Pair]) -> list[list[int]]:
    """The positions of the pairs of each setting, families in one order."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for position in sorted(range(len(pairs)), key=lambda one: pairs[one]["model"]):
        found.setdefault(tuple(pairs[position][name] for name in SETTING), []).append(position)
    return list(found.values())


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's r.

    >>> round(rank_correlation([1, 2, 3, 4, 5, 6], [1, 3, 2, 5, 4, 6]), 2)
    0.89
    """
    return float(spearmanr(x, y).statistic)


def with_interval(x: Sequence[float], y: Sequence[float], settings: Sequence[Sequence[int]], draws: int = 2000) -> dict[str, float]:
    """Spearman's r with the percentiles of a bootstrap over settings; none below `MIN_SETTINGS`."""
    r = rank_correlation(x, y)
    if len(settings) < MIN_SETTINGS:
        return {"r": r}
    random = np.random.default_rng(0)
    chosen = ([i for one in random.integers(len(settings), size=len(settings)) for i in settings[one]] for _ in range(draws))
    found = [float(np.corrcoef(rankdata(np.take(x, own)), rankdata(np.take(y, own)))[0, 1]) for own in chosen]
    low, high = np.percentile(found, (2.5, 97.5))
    return {"r": r, "low": float(low), "high": float(high)}


def derived(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The candidate that orders the changes of a best, and the line through them by least squares."""
    changes = [pair["change_a"] for pair in pairs]
    found = {name: rank_correlation([value(name, pair) for pair in pairs], changes) for name in CANDIDATES}
    name = max(found, key=lambda one: abs(found[one]))
    slope, offset = np.polyfit([value(name, pair) for pair in pairs], changes, 1)
    best = sorted(found, key=lambda one: -abs(found[one]))[:6]
    chance = by_chance(pairs, abs(found[name]))
    return {"x": name, "slope": float(slope), "offset": float(offset), "next": {one: found[one] for one in best}, "chance": chance}


def by_chance(pairs: Sequence[Pair], largest: float) -> dict[str, float]:
    """Median of the largest correlation of all candidates where the changes of a belong to other settings, and p of `largest`.

    Over all orders of the settings, which have as many pairs each.
    """
    ranks = np.array([rankdata([value(name, pair) for pair in pairs]) for name in CANDIDATES])
    ranks = (ranks - ranks.mean(1, keepdims=True)) / ranks.std(1, keepdims=True)
    changes = rankdata([pair["change_a"] for pair in pairs])
    changes = (changes - changes.mean()) / changes.std()
    settings = np.array(of_settings(pairs))
    ranks, changes = ranks[:, settings.ravel()], changes[settings]
    orders = permutations(range(len(settings)))
    found = np.array([np.abs(ranks @ changes[list(order)].ravel()).max() / len(pairs) for order in orders])
    return {"median": float(np.median(found)), "p": float((found >= largest - 1e-9).mean())}


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
        "p_against_always": against_always(hits, signs),
        "hits": sum(hits),
        "hits_always": sum(signs),
        "hits_never": len(signs) - sum(signs),
        "clear": sum(clear),
        "hits_clear": sum(hit for hit, one in zip(hits, clear, strict=True) if one),
        "hits_clear_always": sum(sign for sign, one in zip(signs, clear, strict=True) if one),
        "hits_clear_never": sum(not sign for sign, one in zip(signs, clear, strict=True) if one),
    }


def p_of_order(rule: Mapping[str, Any], pairs: Sequence[Pair]) -> float:
    """Share of all orders of the settings in which the rule orders the changes of a at least as well; settings of both families only."""
    settings = np.array([own for own in of_settings(pairs) if len(own) == FAMILIES])
    predicted = rankdata([predict(rule, pairs[one]) for one in settings.ravel()])
    changes = np.array([pair["change_a"] for pair in pairs])[settings]
    found = [np.corrcoef(predicted, rankdata(changes[list(order)].ravel()))[0, 1] for order in permutations(range(len(settings)))]
    return float(np.mean(np.array(found) >= found[0] - 1e-9))


def against_always(hits: Sequence[bool], raised: Sequence[bool]) -> float:
    """p of the exact McNemar test of the rule against always balancing, over the pairs where one of the two names the sign.

    >>> against_always([True, True, False, True], [False, False, True, True])
    1.0
    """
    better, worse = (sum(one and not other for one, other in zip(*sides, strict=True)) for sides in ((hits, raised), (raised, hits)))
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def asymmetries(pairs: Sequence[Pair]) -> list[float]:
    """gain(a_r) - gain(a_p) under `none`."""
    return [(pair["none_a_r"] - pair["before_a_r"]) - (pair["none_a_p"] - pair["before_a_p"]) for pair in pairs]


def counted(pairs: Sequence[Pair]) -> dict[str, int]:
    """In how many pairs reasoning gains more and less than perception under `none`, and balancing raised and lowered a, clear of 0.

    `sees_no_better`: the pairs whose base sees no better than it reasons; `sees_no_better_more`: those of them where reasoning gains more.
    """
    gaps = asymmetries(pairs)
    blind = [gap for gap, pair in zip(gaps, pairs, strict=True) if pair["before_a_p"] <= pair["before_a_r"]]
    return {
        "more": sum(gap > 0 for gap in gaps),
        "less": sum(gap < 0 for gap in gaps),
        "sees_no_better": len(blind),
        "sees_no_better_more": sum(gap > 0 for gap in blind),
        "rose": sum(pair["change_a_low"] > 0 for pair in pairs),
        "fell": sum(pair["change_a_high"] < 0 for pair in pairs),
    }


def shares_explain(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """C2: each share against the asymmetry."""
    gaps, settings = asymmetries(pairs), of_settings(pairs)
    return {name: with_interval([pair[name] for pair in pairs], gaps, settings) for name in KNOWN if name != "steps"}


def accounted(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The change of a computed from a_p and a_r after training, beside the measured one.

    With q, a where the percept is wrong: a = a_p a_r + (1 - a_p) q. q is that of the base: a - a_p coupling, before training.
    """
    computed: list[float] = []
    misread: dict[str, list[float]] = {}
    for pair in pairs:
        q = pair["before_a"] - pair["before_a_p"] * pair["coupling"]
        misread.setdefault(pair["task"], []).append(q)
        none, ngdiff = (pair[f"{side}_a_p"] * (pair[f"{side}_a_r"] - q) for side in ("none", "ngdiff"))
        computed.append(ngdiff - none)
    measured = [pair["change_a"] for pair in pairs]
    errors = [abs(one - other) for one, other in zip(computed, measured, strict=True)]
    same = [(one > 0) == (other > 0) for one, other in zip(computed, measured, strict=True)]
    rest = [position for position in range(len(pairs)) if abs(measured[position]) < max(map(abs, measured))]
    return {
        "r": float(np.corrcoef(computed, measured)[0, 1]),
        "r_without_largest": float(np.corrcoef(np.take(computed, rest), np.take(measured, rest))[0, 1]),
        "error": float(np.mean(errors)),
        "size": float(np.mean(np.abs(measured))),
        "same_sign": {
            task: [sum(own), len(own)] for task in misread if (own := [same[i] for i, pair in enumerate(pairs) if pair["task"] == task])
        },
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
        axes.set_xlabel("predicted before training, points")
        axes.set_ylabel("measured, points, 95 % interval")
        of = {"color": "none", "markeredgecolor": INK, "markersize": 7}
        axes.legend(
            handles=[
                Line2D([], [], marker="o", **of, label="InternVL3.5"),
                Line2D([], [], marker="s", **of, label="Qwen3-VL"),
                Patch(color=PERCEPTION, label="Sudoku"),
                Patch(color=REASONING, label="Graph Coloring"),
                Line2D([], [], marker="o", **of, markerfacecolor="white", label="made the rule"),
                Line2D([], [], marker="o", **of, markerfacecolor=INK, label="held out"),
            ],
            frameon=False, fontsize="small",
        )  # fmt: skip
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
    found["p_of_order"] = p_of_order(rule, others)
    found["accounted"] = accounted(pairs)
    found["num_settings"] = len(of_settings(pairs))
    found["counts"] = counted(pairs)
    (RESULTS / "rule.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(rule, pairs, RESULTS / "rule.svg")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
