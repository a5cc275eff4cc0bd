"""A diagnosis finds the reward with the built-in correlation, and its advice gives the reasons."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from percasym.diagnosis.advice import advice, coupling_of_outcome
from percasym.diagnosis.correlations import Correlation, Coupling
from percasym.diagnosis.diagnose import Diagnosis, RewardDiagnosis, diagnose
from percasym.diagnosis.rollout_file import RolloutGroup

Groups = list[RolloutGroup]


@pytest.fixture(scope="module")
def found(groups: Groups) -> Diagnosis:
    return diagnose(groups)


def only(groups: Sequence[RolloutGroup], *names: str) -> Groups:
    """The same rollouts with these rewards only."""
    kept = frozenset(names)
    return [replace(group, rewards={name: group.rewards[name] for name in names}, labelled=group.labelled & kept) for group in groups]


def paying(groups: Sequence[RolloutGroup], pay: Callable[[RolloutGroup, int], float | None]) -> Groups:
    """The same rollouts with one reward, `mine`."""
    return [
        replace(group, rewards={"mine": tuple(pay(group, sibling) for sibling in range(len(group.rollouts)))}, labelled=frozenset())
        for group in groups
    ]


def test_rewards_stand_by_what_they_say_within_prompts(found: Diagnosis) -> None:
    names = [reward.name for reward in found.rewards]
    assert names[:3] == ["blindfold_solver", "oracle", "consensus"]
    assert names[-1] == "valid_state", "a constant comes last"
    assert [reward.name for reward in found.rewards if reward.labelled] == ["oracle"]
    assert (found.num_groups, found.num_rollouts, found.exact) == (48, 384, True)


def test_known_correlations_lie_in_their_intervals(found: Diagnosis) -> None:
    by_name = {reward.name: reward for reward in found.rewards}
    assert by_name["oracle"].perception.within.r == by_name["oracle"].paid.pooled.r == pytest.approx(1.0)
    low, high = by_name["augmentation"].perception.within.ci95
    assert low < 0 < high
    assert by_name["augmentation"].perception.across.ci95[0] > 0.5
    assert by_name["blindfold_solver"].perception.num_left_out == round(384 * by_name["blindfold_solver"].scores.not_measurable)


def test_a_missing_score_counts_as_zero_reward(found: Diagnosis) -> None:
    silent = next(reward for reward in found.rewards if reward.name == "blindfold_solver")
    assert silent.perception.within.r == pytest.approx(1.0)
    assert silent.paid.within.r < 0.7
    assert silent.paid.num_left_out == 0


def test_the_best_surrogate_is_recommended_and_the_oracle_is_a_reference(found: Diagnosis) -> None:
    text = advice(found)
    best = next(reward for reward in found.rewards if reward.name == "consensus")
    assert text.startswith(
        f"Train on reward=consensus: within prompts its r with exact perception a_p is {best.paid.within}, the highest lower"
    )
    assert text.endswith("With labels, oracle has 1.00 [1.00, 1.00].")
    assert "augmentation" in text.partition("easy prompts from hard ones only")[0]


def test_when_nothing_helps_it_says_so(groups: Groups) -> None:
    text = advice(diagnose(only(groups, "augmentation", "valid_state", "oracle")))
    assert text.startswith(
        "None of the rewards that need no percept labels is worth training on: within prompts, no r with exact perception a_p"
    )
    assert "(the first of the table is augmentation, " in text
    assert "augmentation tells easy prompts from hard ones only" in text


def test_a_surrogate_with_missing_scores_is_recommended_with_a_warning(groups: Groups) -> None:
    text = advice(diagnose(only(groups, "blindfold_solver")))
    assert "Train on reward=blindfold_solver" in text
    assert "It has no score for 40% of the rollouts, and they earn 0; among the others r is 1.00 [1.00, 1.00]." in text


def test_a_reward_that_mostly_pays_siblings_alike_is_warned_of(groups: Groups) -> None:
    rare = paying(groups, lambda group, i: float(group.grades[i].perception) if group.rollouts[0].prompt.key.index % 3 == 0 else 0.0)
    assert "of the prompts all siblings earn the same of it" in advice(diagnose(rare))
    assert "earn the same of it" not in advice(diagnose(paying(groups, lambda group, i: float(group.grades[i].perception))))


def test_a_certain_but_weak_reward_is_reported_as_weak_beside_an_uncertain_strong_one(found: Diagnosis) -> None:
    def of(name: str, r: float, low: float) -> RewardDiagnosis:
        text = Correlation(r=r, ci95=(low, 0.9), n=48)
        model = next(reward for reward in found.rewards if reward.name == "consensus")
        return replace(model, name=name, paid=Coupling(pooled=text, within=text, across=text, num_left_out=0))

    text = advice(replace(found, rewards=(of("sure", 0.1, 0.05), of("strong", 0.4, -0.01))))
    assert text.startswith("Train on reward=sure")
    assert "That is little: it accounts for 1.0% of what siblings differ in." in text
    assert "Perhaps better, but too uncertain on 48 prompts: strong .40 [-.01, .90]. More prompts would tell." in text
    assert "hard ones only" not in text, "what is uncertain is not ruled out"
    assert "Perhaps better" not in advice(replace(found, rewards=(of("sure", 0.5, 0.3), of("strong", 0.4, -0.01))))


def test_a_sign_that_turns_across_prompts_is_warned_of(groups: Groups) -> None:
    def pay(group: RolloutGroup, i: int) -> float:
        return float(group.grades[i].perception) - 2 * sum(grade.perception for grade in group.grades) / len(group.grades)

    assert "Beware: across prompts the sign is the other (-1.00 [-1.00, -1.00])" in advice(diagnose(paying(groups, pay)))


def test_labels_alone_are_no_surrogate(groups: Groups) -> None:
    text = advice(diagnose(only(groups, "oracle")))
    assert text == "Only rewards that read the percept label were measured, so there is no surrogate to recommend."


def test_a_few_prompts_recommend_nothing(groups: Groups) -> None:
    text = advice(diagnose(groups[:5]))
    assert text.startswith("5 prompts say too little to recommend a reward; sample at least 8, better 64.")
    assert "Train on" not in text


def test_graded_perception_stands_in_where_no_siblings_differ_and_says_so(groups: Groups) -> None:
    blind = [replace(group, grades=tuple(replace(grade, perception=False) for grade in group.grades)) for group in groups]
    found = diagnose(blind)
    assert not found.exact
    assert all(math.isnan(reward.perception.within.r) for reward in found.rewards)
    assert found.rewards[0].paid.within.r > 0.5
    assert advice(found).startswith("Exact a_p is the same among all siblings of every prompt, so rewards are judged by graded perception.")


def test_the_outcome_stands_beside_the_ranges_of_the_paper(groups: Groups, found: Diagnosis) -> None:
    text = coupling_of_outcome(found)
    assert f"r(a, a_r) = {found.outcome_reasoning} of the prompts' means (paper: .65 to 1.00)" in text
    assert f"r(a, a_p) = {found.outcome_perception.pooled} over all rollouts" in text
    assert found.outcome_reasoning.n == 48
    unmeasured = diagnose([replace(group, reasoning=None) for group in groups])
    assert unmeasured.outcome_reasoning is None
    assert "r(a, a_r) was not measured" in coupling_of_outcome(unmeasured)


def test_rollouts_without_rewards_are_refused(groups: Groups) -> None:
    with pytest.raises(ValueError, match="carry no rewards"):
        diagnose(only(groups))
