"""A diagnosis in sentences: which reward to train on, warnings about it, and what the outcome reward correlates with."""

from __future__ import annotations

import math

from percasym.diagnosis.correlations import MIN_GROUPS, Coupling
from percasym.diagnosis.diagnose import Diagnosis, RewardDiagnosis
from percasym.types import Estimate

MAX_ZERO_VARIANCE = 0.5
"""Share of zero-variance groups above which most prompts of a step have no gradient."""
WEAK = 0.2
"""r below which a reward explains less than 4 % of the variance within groups (r squared)."""
UNSURE = 0.05
"""Share of resamples without a predicted weight from which on that is said."""
PAPER = "arXiv:2605.29496"
ALONE = 0.3
"""Share of groups that a reward would train alone from which on that is said (our choice: every w cost a at 43 %, few at 9 to 23 %)."""


def advice(found: Diagnosis) -> str:
    """One paragraph: the reward whose r with perception within prompts has the highest lower bound, among those that need no labels.

    A reward is worth training on if that bound is above zero: of two rollouts of a prompt, the one with the higher reward then tends to
    have the better perception.
    """
    judged = "exact perception a_p" if found.exact else "graded perception"
    free = [reward for reward in found.rewards if not reward.labelled]
    sentences = []
    if not found.exact:
        sentences.append("Exact a_p is the same among all siblings of every prompt, so rewards are judged by graded perception.")
    if not free:
        sentences.append("Only rewards that read the percept label were measured, so there is no surrogate to recommend.")
    elif found.num_groups < MIN_GROUPS:
        sentences.append(f"{found.num_groups} prompts say too little to recommend a reward; sample at least {MIN_GROUPS}, better 64.")
    elif useful := [reward for reward in free if reward.paid.within.ci95[0] > 0]:
        best = max(useful, key=lambda reward: reward.paid.within.ci95[0])
        sentences.append(f"Train on reward={best.name}: within prompts its r with {judged} is {best.paid.within},")
        sentences.append("the highest lower bound of the rewards that need no percept labels.")
        sentences += _weakness(best, free)
        sentences += [*_warnings(best, best.perception if found.exact else best.perception_graded), *_only_across(free)]
    else:
        sentences.append(f"None of the rewards that need no percept labels is worth training on: within prompts, no r with {judged}")
        sentences.append(f"has an interval above zero (the first of the table is {free[0].name}, {free[0].paid.within}).")
        sentences.append("Sample more prompts, or train with labels (reward=oracle).")
        sentences += _only_across(free)
    sentences += [f"With labels, {reward.name} has {reward.paid.within}." for reward in found.rewards if reward.labelled and free]
    return " ".join(sentences)


def weight_advice(found: Diagnosis) -> str:
    """One paragraph: which weight w of the perception reward the rollouts predict, for the label and for the best surrogate.

    w = 0 where p* would not raise a: then reasoning holds it back, not seeing. Otherwise that of `percasym.diagnosis.weight`.
    """
    if found.num_groups < MIN_GROUPS:
        return f"{found.num_groups} prompts say too little to predict a weight of perception; sample at least {MIN_GROUPS}, better 64."
    sentences = []
    if found.headroom is None:
        sentences.append("What p* would add to a was not measured (it needs counterfactual rollouts).")
    elif found.headroom.ci95[0] <= 0:
        gained = _in_points(found.headroom)
        return (
            f"Take w = 0 (balance=none): with p* given, a changes by {gained} points (a_r - a), so seeing is not what holds it back, "
            "as far as these prompts tell."
        )
    else:
        sentences.append(f"With p* given, a gains {_in_points(found.headroom)} points (a_r - a), so seeing holds it back.")
    for reward in _weighed(found):
        own, named = reward.weight, f"reward={reward.name}"
        if math.isnan(own.weight):
            sentences.append(f"No weight of {named} couples R to seeing as much as to reasoning.")
        elif own.weight == 0:
            sentences.append(f"The outcome is coupled to seeing at least as much as to reasoning, so {named} needs no weight: w = {own}.")
        else:
            sentences.append(
                f"With {named}, R is coupled to seeing and to reasoning alike at w = {own}: balance=fixed balance.weight={own.weight:.1f}."
            )
        if own.undefined > UNSURE:
            sentences.append(f"That is unsure: {own.undefined:.0%} of the resamples have no such weight.")
        if own.weight > 0 and reward.alone > ALONE:
            sentences.append(
                f"But in {reward.alone:.0%} of the groups {named} varies and the outcome does not. paradigm.mixing=sum_then_normalize "
                "trains them for it alone at any w above 0, in the reasoning tokens too: where 43% were such, every w cost a. "
                "paradigm.route=true keeps it out of those tokens."
            )
    sentences.append(
        "The rule is ours, and a prediction: at the four starts where it was tested no w above 0 raised a (experiments/rl_regimes). Train "
        "with and without."
    )
    return " ".join(sentences)


def variance_advice(found: Diagnosis) -> str:
    """One line: the rewards that are the same throughout most groups, which cannot teach there; empty where there is none."""
    shares = [("the outcome", found.outcome.zero_variance), *((reward.name, reward.scores.zero_variance) for reward in found.rewards)]
    poor = [f"{share:.0%} of groups agree in {name}" for name, share in shares if share > MAX_ZERO_VARIANCE]
    if not poor:
        return ""
    return f"{'; '.join(poor)}: such a reward cannot teach there. Sample larger groups or hotter, or from a model that is less sure."


def _weighed(found: Diagnosis) -> list[RewardDiagnosis]:
    """The label, and the surrogate that `advice` would train on, by the lower bound of its r."""
    free = [reward for reward in found.rewards if not reward.labelled and reward.paid.within.ci95[0] > 0]
    best = [max(free, key=lambda reward: reward.paid.within.ci95[0])] if free else []
    return [reward for reward in found.rewards if reward.labelled] + best


def _in_points(estimate: Estimate) -> str:
    low, high = estimate.ci95
    return f"{100 * estimate.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def coupling_of_outcome(found: Diagnosis) -> str:
    """One paragraph: the correlations of the outcome reward, beside the ranges of the paper."""
    if found.outcome_reasoning is None:
        reasoning = "r(a, a_r) was not measured (it needs counterfactual rollouts)"
    else:
        reasoning = f"r(a, a_r) = {found.outcome_reasoning} of the prompts' means"
    coupling = found.outcome_perception
    perception = f"r(a, a_p) = {coupling.pooled} over all rollouts, {coupling.within} within prompts, {coupling.across} of their means"
    return (
        f"The outcome reward: {reasoning} (paper: .65 to 1.00); {perception} (paper: .34 to .43). Paper: {PAPER}. "
        f"Within prompts, where a_r has one value, r(a, faithful) = {found.outcome_faithful.within} stands for it."
    )


def _weakness(best: RewardDiagnosis, free: list[RewardDiagnosis]) -> list[str]:
    """Sentences about a small or uncertain correlation of the best reward."""
    r, sentences = best.paid.within.r, []
    if r < WEAK:
        sentences.append(f"That is little: it accounts for {r * r:.1%} of what siblings differ in.")
    rivals = [reward for reward in free if reward.paid.within.r > max(r, WEAK) and reward is not best]
    if rivals:
        named = ", ".join(f"{reward.name} {reward.paid.within}" for reward in rivals)
        sentences.append(f"Perhaps better, but too uncertain on {rivals[0].paid.across.n} prompts: {named}. More prompts would tell.")
    return sentences


def _warnings(best: RewardDiagnosis, where_scored: Coupling) -> list[str]:
    """Sentences about missing scores, zero variance, and a negative correlation across prompts."""
    sentences, scores, across = [], best.scores, best.paid.across
    if scores.not_measurable > 0:
        share = f"{scores.not_measurable:.0%}"
        sentences.append(f"It has no score for {share} of the rollouts, and they earn 0; among the others r is {where_scored.within}.")
    if scores.zero_variance > MAX_ZERO_VARIANCE:
        sentences.append(
            f"Beware: in {scores.zero_variance:.0%} of the prompts all siblings earn the same of it, and nothing is learned there;"
        )
        sentences.append("sample larger groups, sample hotter, or set paradigm.resample with paradigm.resample_by=perception.")
    if across.ci95[1] < 0:
        sentences.append(f"Beware: across prompts the sign is the other ({across}), so it pays most where the model sees worst.")
    return sentences


def _only_across(rewards: list[RewardDiagnosis]) -> list[str]:
    """A sentence about rewards that correlate with perception across prompts only."""
    names = [
        reward.name
        for reward in rewards
        if reward.paid.across.ci95[0] > 0 and not reward.paid.within.ci95[0] > 0 and not reward.paid.within.r >= WEAK
    ]
    if not names:
        return []
    verb = "tells" if len(names) == 1 else "tell"
    return [f"{' and '.join(names)} {verb} easy prompts from hard ones only: siblings share their prompt, so no advantage comes of that."]
