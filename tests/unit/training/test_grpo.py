"""The RL loop: gradients of mixed, routed and balanced rewards, logged metrics, and resuming."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from percasym.balance.fixed import Fixed
from percasym.balance.gradnorm import GradNorm
from percasym.balance.inverse_loss import InverseLoss
from percasym.balance.ngdiff import NGDiff
from percasym.balance.none import NoBalance
from percasym.balance.saw import Saw
from percasym.balance.staged import Staged
from percasym.config.paradigm import Rl
from percasym.models.base import Batch
from percasym.training.divergence import TrainingDivergedError, load_batches
from percasym.training.grpo import reward_losses, train
from percasym.training.progress import TrainingState
from percasym.training.rollout_batch import MicroBatch, RolloutBatch
from percasym.types import UNSUPERVISED, Span
from tests.unit.training.fakes import FakeRun, OneNumber

P, R = Span.perception, Span.reasoning


class Tilt(OneNumber):
    """Every token of rollout i has log-probability x * slope[i] - 1."""

    def __init__(self, hidden_norms, x=0.0) -> None:
        super().__init__(x)
        self.hidden_norms = torch.tensor(hidden_norms)

    def nll(self, batch):
        return (1 - self.x * self.hidden_norms[batch.ids[:, :1]]) * (batch.labels != UNSUPERVISED)


class FourRollouts(RolloutBatch):
    """A batch of four rollouts whose first token is their number; each has one perception and two reasoning tokens."""

    def counts(self, settings):
        return torch.tensor([4, 8])

    def window(self, family, settings, rows_per_forward, advantages):
        labels = torch.tensor([[UNSUPERVISED, P, R, R]] * 4)
        ids = torch.arange(4)[:, None].expand(4, 4)
        batch = Batch(ids=ids, mask=torch.ones(4, 4, dtype=torch.int64), labels=labels)
        sampled = torch.where(labels != UNSUPERVISED, -1.0, 0.0)
        return [
            MicroBatch(
                batch=Batch(ids=ids[at : at + rows_per_forward], mask=batch.mask[at : at + rows_per_forward],
                            labels=labels[at : at + rows_per_forward]),
                rows=torch.arange(4)[at : at + rows_per_forward], sampled=sampled[at : at + rows_per_forward],
            )
            for at in range(0, 4, rows_per_forward)
        ]  # fmt: skip


PERCEPTION = torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
OUTCOME = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)


def trained(
    *,
    balancer=None,
    hidden_norms=(1.0, 2.0, 3.0, 4.0),
    perception=PERCEPTION,
    outcome=OUTCOME,
    x=0.0,
    reference=None,
    start=None,
    path=None,
    **options,
):
    """Train the tilt on the same four rollouts; returns the engine, the run and the weights."""
    settings = Rl(**{"steps": 1, "batch_size": 1, "group_size": 4, "micro_batch_size": 4, "lr": 1.0, "warmup_frac": 0.0, "normalize": False}
                  | options)  # fmt: skip
    engine, fake_run, weights = Tilt(hidden_norms, x), FakeRun(path), []

    def collect(step, weight):
        weights.append(weight)
        return FourRollouts(groups=(), places=(), perception=perception, outcome=outcome, scores={}, reasoning=())

    def observe(done, batch, advantages, weight):
        return {"reward/perception/mean": float(perception.mean()), "reward/outcome/mean": float(outcome.mean())}

    train(
        engine=engine, family=None, collect=collect, observe=observe, balancer=balancer or NoBalance(), settings=settings, max_new_tokens=8,
        run=fake_run, evaluate=lambda step: None, reference=reference, start=start,
    )  # fmt: skip
    return SimpleNamespace(engine=engine, fake_run=fake_run, weights=weights)


def test_without_balancing_the_outcome_alone_is_learned() -> None:
    # Advantages .5 .5 -.5 -.5; d logprob / dx = 1 2 3 4; three tokens each of 12: -(.5 + 1 - 1.5 - 2) * 3 / 12 = .5
    assert trained().engine.grads == pytest.approx([0.5])


def test_with_all_weight_on_perception_the_outcome_has_no_gradient() -> None:
    # Advantages .5 -.5 .5 -.5: -(.5 - 1 + 1.5 - 2) * 3 / 12 = .25
    assert trained(balancer=Fixed(weight=1.0)).engine.grads == pytest.approx([0.25])


@pytest.mark.parametrize("mixing", ["sum_then_normalize", "normalize_then_sum"])
def test_half_the_weight_gives_the_mean_of_both_gradients_when_nothing_is_normalised(mixing) -> None:
    assert trained(balancer=Fixed(weight=0.5), mixing=mixing).engine.grads == pytest.approx([0.375])


def test_routed_rewards_reach_only_the_tokens_that_earned_them() -> None:
    # Half of A_p on the one perception token of each: .25 / 3 * .5; half of A_o on the two reasoning tokens: .5 * 2 / 3 * .5
    assert trained(balancer=Fixed(weight=0.5), route=True).engine.grads == pytest.approx([0.25 / 6 + 0.5 / 3])


def test_ngdiff_makes_both_policy_gradients_weigh_the_same() -> None:
    done = trained(balancer=NGDiff())
    # |g_p| = .25, |g_r| = .5: w = .5 / .75 = 2/3, so w g_p + (1 - w) g_r = 1/6 + 1/6.
    assert done.engine.grads == pytest.approx([1 / 3])
    line = done.fake_run.lines[1]
    assert (line["balance/weight"], line["grad/perception"], line["grad/reasoning"]) == pytest.approx((2 / 3, 0.25, 0.5))


def test_gradnorm_reads_gradients_and_one_minus_the_mean_reward() -> None:
    # Norms .25 and .5, shares 1/3 and 2/3; both losses are one half, so each target is the mean norm: w_p + lr / 3, w_r - 2 lr / 3.
    line = trained(balancer=GradNorm(lr=0.03)).fake_run.lines[1]
    assert line["balance/weight"] == pytest.approx(0.51 / (0.51 + 0.48))


def test_saw_weighs_rewards_by_their_coefficients_of_variation_in_the_same_round() -> None:
    outcome = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    done = trained(balancer=Saw(), outcome=outcome)
    # a_p = 1 0 1 0: deviation sqrt(1/3), mean 1/2, CV 1.1547. a = 1 0 0 0: deviation 1/2, mean 1/4, CV 2.
    expected = math.sqrt(4 / 3) / (math.sqrt(4 / 3) + 2)
    assert done.fake_run.lines[1]["balance/weight"] == pytest.approx(expected)
    # Advantages .5 -.5 .5 -.5 and .75 -.25 -.25 -.25 with slopes 1 2 3 4, three tokens each of 12: gradients .25 and .375.
    assert done.engine.grads == pytest.approx([expected * 0.25 + (1 - expected) * 0.375])
    nothing = trained(balancer=Saw(), steps=2, outcome=torch.zeros(1, 4, dtype=torch.float64)).fake_run.lines
    assert [line["balance/weight"] for line in nothing.values()] == [0.5, 0.5]


def test_stages_move_the_weight_from_perception_to_the_outcome() -> None:
    assert trained(balancer=Staged(), steps=6).weights == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_inverse_losses_are_one_minus_the_mean_reward_and_stand_still_when_nothing_is() -> None:
    weights = trained(balancer=InverseLoss(), steps=2, outcome=torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)).weights
    assert weights == pytest.approx([0.5, 0.6])  # .5 and .75 are left: w = .75 / 1.25.
    assert trained(balancer=InverseLoss(), steps=2, perception=torch.ones(1, 4, dtype=torch.float64)).weights == [0.5, 0.5]


def test_micro_batches_change_nothing() -> None:
    assert trained(micro_batch_size=1).engine.grads == pytest.approx(trained(micro_batch_size=4).engine.grads)


def test_a_group_with_zero_variance_has_no_gradient() -> None:
    assert trained(outcome=torch.ones(1, 4, dtype=torch.float64)).engine.grads == [0.0]


def test_inner_epochs_reuse_the_rollouts_and_are_clipped() -> None:
    done = trained(epochs=3, lr=1.0)
    # x goes 0 -> -.5: ratios exp(-.5 slope) < .8, so rollouts that should become rarer are clipped, and the pull of the others stays.
    assert len(done.engine.grads) == 3
    assert len(done.weights) == 1
    line = done.fake_run.lines[1]
    assert line["policy/clipped/first"] == 0.0
    assert line["policy/clipped"] == pytest.approx(0.5)
    assert line["policy/drift/first"] == 0.0 < line["policy/drift"]


def test_the_divergence_between_sampler_and_trainer_is_logged_every_round_and_raises_an_alarm() -> None:
    done = trained(steps=3, lr=0.0001)
    assert all(line["policy/mismatch"] < 1e-6 for line in done.fake_run.lines.values())
    assert done.fake_run.warnings == []
    # At x = .1 log-probabilities are .1 .2 .3 .4 above what the sampler said: k3 = exp(d) - 1 - d of each, the same for all its tokens.
    expected = sum(math.exp(d) - 1 - d for d in (0.1, 0.2, 0.3, 0.4)) / 4
    off = trained(steps=3, lr=1e-9, x=0.1, epochs=2)
    assert [line["policy/mismatch"] for line in off.fake_run.lines.values()] == pytest.approx([expected] * 3)
    (warning,) = off.fake_run.warnings  # Once, for it does not grow.
    assert "at round 1 " in warning
    assert f"{expected:.2g} nats per token" in warning
    assert "paradigm.importance_cap=2" in warning
    assert trained(x=0.1, alarm_kl=0.0).fake_run.warnings == []
    assert trained(x=0.1, alarm_kl=1.0).fake_run.warnings == []


def test_a_round_without_an_advantage_still_measures_the_divergence() -> None:
    done = trained(outcome=torch.ones(1, 4, dtype=torch.float64), x=0.3)
    assert done.fake_run.lines[1]["policy/mismatch"] > 0.01
    assert len(done.fake_run.warnings) == 1


def test_groups_with_an_advantage_are_counted() -> None:
    perception, outcome = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    batch = FourRollouts(groups=(), places=(), perception=perception.double(), outcome=outcome.double(), scores={}, reasoning=())
    settings = Rl(steps=1, batch_size=3, group_size=2, micro_batch_size=2, lr=1.0)
    assert [batch.num_taught(batch.advantages(settings, weight)) for weight in (0.0, 0.3, 0.5)] == [1, 2, 1]  # At .5 the last one cancels.
    assert batch.num_taught(batch.blended(settings, 0.3)) == 2


def test_token_weight_averages_each_span_over_its_own_tokens() -> None:
    # Every token of a row has the same gradient, so the weights of the spans add up to 1 and the gradient is that of the row means.
    assert trained(token_weight=0.9).engine.grads == pytest.approx([0.5])


def test_the_policy_is_pulled_back_to_the_reference(monkeypatch) -> None:
    def everywhere_minus_one(learner, micro):
        return torch.where(micro.batch.labels != UNSUPERVISED, -1.0, 0.0)

    monkeypatch.setattr("percasym.training.grpo.Learner._reference_logprobs", everywhere_minus_one)
    nothing = torch.zeros(1, 4, dtype=torch.float64)
    done = trained(outcome=nothing, x=0.5, kl=0.1, reference=object())
    # k3 has slope 1 - exp(reference - logprob) in logprob; here logprob = .5 slope - 1, and the tokens of a row are 3 of 12.
    expected = sum(0.1 * 3 / 12 * slope * (1 - math.exp(-0.5 * slope)) for slope in (1, 2, 3, 4))
    assert done.engine.grads == pytest.approx([expected])
    assert done.fake_run.lines[1]["policy/kl"] > 0


def test_a_resumed_run_goes_on_at_its_step() -> None:
    whole = trained(steps=4, save_every=2)
    assert whole.fake_run.checkpoints == [2, 4]
    half = trained(steps=4, start=TrainingState(step=2, balance=NoBalance().start(), share=None))
    assert [*half.fake_run.lines] == [3, 4]
    assert [*whole.fake_run.lines] == [1, 2, 3, 4]


def test_a_loss_that_is_no_number_stops_the_run_with_advice(tmp_path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"choose a paradigm\.lr below 1\.0"):
        trained(hidden_norms=(math.nan, 1.0, 1.0, 1.0), path=tmp_path)
    (kept,) = load_batches(tmp_path)
    assert kept.ids[:, 0].tolist() == [0, 1, 2, 3], "the rollouts that it learned from"


def test_one_minus_the_mean_reward_is_the_loss_that_strategies_read() -> None:
    batch = FourRollouts(groups=(), places=(), perception=PERCEPTION, outcome=0.5 * OUTCOME, scores={}, reasoning=())
    assert_close(torch.tensor(reward_losses(batch)), torch.tensor([0.5, 0.75]))
