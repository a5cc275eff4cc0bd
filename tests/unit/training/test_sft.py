"""The SFT loop: logged metrics, measured steps, divergence, checkpoints and resuming."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext

import pytest
import torch

from percasym.balance.base import BalanceState, Gramian, SpanStats
from percasym.balance.fixed import Fixed
from percasym.balance.ngdiff import NGDiff
from percasym.balance.none import NoBalance
from percasym.config.files import UnfitFileError
from percasym.config.paradigm import Sft
from percasym.config.schema import ConfigError
from percasym.models.base import Batch
from percasym.training.divergence import TrainingDivergedError, load_batches, load_metrics, save_batches, save_metrics
from percasym.training.progress import TrainingState, learning_rate
from percasym.training.sft import train
from percasym.training.span_gradients import Share, share_of, step_metrics
from percasym.types import UNSUPERVISED, Span
from tests.unit.training.fakes import FakeRun, OneNumber

P, R = Span.perception, Span.reasoning
MEASURED = {"grad/perception", "grad/reasoning", "grad/cosine", "share/gradient"}
ALWAYS = {
    "loss/perception", "loss/reasoning", "loss/total", "tokens/perception", "tokens/reasoning", "share/tokens", "share/loss",
    "balance/weight", "grad/norm", "lr", "time/step_seconds", "tokens_per_second",
}  # fmt: skip


class Scale(OneNumber):
    """Token losses are 3x in perception and x in reasoning."""

    cache_vision = reuse_vision = staticmethod(nullcontext)

    def __init__(self, x: float = 1.0) -> None:
        super().__init__(x)
        self.forwards: list[int] = []

    def loss(self, batch, coefficients):
        self.forwards.append(batch.ids.shape[1])
        nll = self.x * (3.0 * (batch.labels == P) + 1.0 * (batch.labels == R))
        return (nll * coefficients).sum(), nll.detach()


def batch(labels=(UNSUPERVISED, P, R, R, R)) -> Batch:
    row = torch.tensor([labels])
    return Batch(ids=torch.zeros_like(row), mask=torch.ones_like(row), labels=row)


def fit(balancer, *, engine=None, fake_run=None, start=None, windows=None, evaluate=lambda step: None, **options) -> tuple[Share, FakeRun]:
    settings = Sft(**{"steps": 6, "batch_size": 1, "micro_batch_size": 1, "lr": 0.1, "warmup_frac": 0.0} | options)
    fake_run, engine = fake_run or FakeRun(), engine or Scale()
    windows = windows or [[batch()]] * (settings.steps - (start.step if start else 0))
    share = train(engine=engine, batches=windows, balancer=balancer, settings=settings, run=fake_run, evaluate=evaluate, start=start)
    return share, fake_run


def test_every_step_logs_every_number():
    _, fake_run = fit(NGDiff())
    assert list(fake_run.lines) == [1, 2, 3, 4, 5, 6]
    assert all(set(values) == ALWAYS | MEASURED for values in fake_run.lines.values())


def test_a_strategy_that_needs_counts_measures_gradients_only_when_probed():
    engine = Scale()
    _, fake_run = fit(NoBalance(), engine=engine, probe_every=4)
    assert [step for step, values in fake_run.lines.items() if set(values) >= MEASURED] == [1, 5]
    # A probed step runs the prefix (2 tokens), then the whole row (5); the others one whole row.
    assert engine.forwards == [2, 5, 5, 5, 5, 2, 5, 5]


def test_measuring_the_gradients_does_not_change_the_training():
    engines = Scale(), Scale()
    fit(Fixed(weight=0.3), engine=engines[0], probe_every=0)
    fit(Fixed(weight=0.3), engine=engines[1], probe_every=1)
    assert engines[0].x.item() == pytest.approx(engines[1].x.item(), rel=1e-6)


def test_the_numbers_of_a_step_are_those_of_its_definition():
    # x = 1, so L_p = 3 and L_r = 1, g_p = 3 and g_r = 1; w = |g_r| / (|g_p| + |g_r|) = 1/4; one perception token of four.
    share, fake_run = fit(NGDiff())
    first = fake_run.lines[1]
    expected = {
        "loss/perception": 3.0,
        "loss/reasoning": 1.0,
        "loss/total": 0.25 * 3 + 0.75 * 1,
        "tokens/perception": 1,
        "tokens/reasoning": 3,
        "share/tokens": 0.25,
        "balance/weight": 0.25,
        "share/loss": 0.75 / 1.5,
        "grad/perception": 3.0,
        "grad/reasoning": 1.0,
        "grad/cosine": 1.0,
        "share/gradient": 0.5,
        "grad/norm": 0.25 * 3 + 0.75 * 1,
        "lr": learning_rate(Sft(steps=6, batch_size=1, micro_batch_size=1, lr=0.1, warmup_frac=0.0), 0),
    }
    assert {name: first[name] for name in expected} == pytest.approx(expected)
    # Under the token average perception holds 1 * 3 of 1 * 3 + 3 * 1, in loss as in gradient, whatever the strategy weighs.
    assert share == Share(tokens=0.25, loss=0.5, gradient=0.5)
    assert fit(Fixed(weight=0.9))[0] == share


def test_a_strategy_that_needs_losses_moves_the_next_step():
    class Follow:
        needs = "losses"

        def start(self):
            return BalanceState(weight=0.5)

        def step(self, state, stats):
            assert stats.losses is not None
            return BalanceState(weight=state.weight / 2)

    _, fake_run = fit(Follow(), steps=3)
    assert [values["balance/weight"] for values in fake_run.lines.values()] == [0.5, 0.25, 0.125]


def test_evaluations_and_checkpoints_fall_on_their_steps():
    evaluated = []
    _, fake_run = fit(NoBalance(), evaluate=evaluated.append, eval_every=2, save_every=4)
    assert evaluated == [2, 4]  # Neither before nor after training: that is the caller's.
    assert fake_run.checkpoints == [4, 6]
    assert fit(NoBalance())[1].checkpoints == [6]


def test_the_bar_shows_both_losses_and_the_weight():
    _, fake_run = fit(Fixed(weight=0.3))
    assert fake_run.bar == (6, "training", 0)
    assert fake_run.shown[0] == (1, {"L_p": 3.0, "L_r": 1.0, "weight": 0.3})


def test_a_resumed_training_logs_what_an_unbroken_one_logs(tmp_path):
    balancer = NGDiff(smoothing=0.5)
    share, whole = fit(balancer, fake_run=FakeRun(tmp_path, keep=True), save_every=3)
    engine = Scale(float(torch.load(tmp_path / "3" / "x.pt", weights_only=True)))
    progress = TrainingState.load(tmp_path / "3")
    assert progress.step == 3
    again, rest = fit(balancer, engine=engine, start=progress)
    assert again == share  # Of the first step, not of the first step after the break.
    assert list(rest.lines) == [4, 5, 6]
    for step, values in rest.lines.items():
        assert {k: v for k, v in values.items() if "second" not in k} == {k: v for k, v in whole.lines[step].items() if "second" not in k}


def test_a_finished_training_resumes_to_its_share(tmp_path):
    share, _ = fit(NoBalance(), fake_run=FakeRun(tmp_path, keep=True))
    again, fake_run = fit(NoBalance(), start=TrainingState.load(tmp_path / "6"), windows=iter(()))
    assert again == share
    assert fake_run.lines == {}


def test_a_loss_that_is_not_a_number_stops_the_training_and_dumps_its_batches(tmp_path):
    engine, fake_run = Scale(math.nan), FakeRun(tmp_path)
    with pytest.raises(TrainingDivergedError) as error:
        fit(NoBalance(), engine=engine, fake_run=fake_run)
    place = tmp_path / "diverged"
    kept = f"Its batches are in {place}: see percasym replay {tmp_path}"
    assert str(error.value) == f"loss/total is nan at step 1. {kept}, or choose a paradigm.lr below 0.1."
    (again,) = load_batches(tmp_path)
    assert torch.equal(again.labels, batch().labels)
    assert torch.equal(again.ids, batch().ids)
    assert (load_metrics(tmp_path)["step"], load_metrics(tmp_path)["loss/total"]) == (1, "nan")
    assert list(fake_run.lines) == [1]
    assert fake_run.checkpoints == []


def test_too_few_windows_are_an_error():
    with pytest.raises(ValueError, match="shorter"):
        fit(NoBalance(), windows=[[batch()]] * 5)


def test_a_step_without_perception_trains_reasoning_alone():
    _, fake_run = fit(Fixed(weight=0.5), windows=[[batch((UNSUPERVISED, R, R))]], steps=1)
    values = fake_run.lines[1]
    assert values["tokens/perception"] == 0
    assert math.isnan(values["loss/perception"])
    assert values["loss/total"] == 0.5
    assert values["share/gradient"] == 0


def test_counts_and_losses_are_those_of_all_micro_batches():
    windows = [[batch((UNSUPERVISED, P, P, R)), batch((UNSUPERVISED, P, R, R))]]
    _, fake_run = fit(NoBalance(), windows=windows, steps=1)
    assert (fake_run.lines[1]["tokens/perception"], fake_run.lines[1]["tokens/reasoning"]) == (3, 3)
    assert fake_run.lines[1]["loss/total"] == 2.0  # (3 * 3 + 3 * 1) / 6


def test_the_learning_rate_rises_and_falls_once():
    settings = Sft(steps=40, batch_size=1, micro_batch_size=1, lr=1e-3, warmup_frac=0.25, final_lr_frac=0.1)
    rates = [learning_rate(settings, step) for step in range(40)]
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert (top, rates[0], rates[top], rates[-1]) == (9, pytest.approx(1e-4), pytest.approx(1e-3), pytest.approx(1e-4))


def test_a_share_without_any_loss_is_not_a_number():
    stats = SpanStats(step=0, num_steps=1, counts=(1, 1), losses=(0.0, 0.0), gramian=Gramian(perception=0.0, reasoning=0.0, cross=0.0))
    assert math.isnan(share_of(stats).gradient)
    assert math.isnan(step_metrics(stats, 0.5)["share/loss"])


def test_a_run_without_a_diverged_step_has_no_batches_of_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no diverged/: no step of it diverged\."):
        load_batches(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ids": torch.tensor([[-1, 0]])}, "ids are negative, or labels are no spans"),
        ({"labels": torch.tensor([[0, 7]])}, "ids are negative, or labels are no spans"),
        ({"mask": torch.ones(1, 3, dtype=torch.int64)}, "ids, mask and labels are no whole numbers of one shape"),
        ({"ids": torch.zeros(1, 2)}, "ids, mask and labels are no whole numbers of one shape"),
    ],
)
def test_batches_of_another_form_are_refused(tmp_path, change, reason):
    parts = {"ids": torch.zeros(1, 2, dtype=torch.int64), "mask": torch.ones(1, 2, dtype=torch.int64), "labels": torch.tensor([[0, 1]])}
    save_batches(tmp_path, 0, [Batch(**parts, inputs={"pixel_values": torch.ones(1)})])
    (kept,) = load_batches(tmp_path)
    assert torch.equal(kept.labels, parts["labels"]) and torch.equal(kept.inputs["pixel_values"], torch.ones(1))
    save_batches(tmp_path, 0, [Batch(**parts | change)])
    with pytest.raises(UnfitFileError, match=rf"batches_rank0\.safetensors holds no batches of a step \({reason}\)\."):
        load_batches(tmp_path)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([], "is no record of a step."),
        ({"balance/weight": 0.5}, "has no step that is a number of a step (None)."),
        ({"step": 3, "balance/weight": "nan"}, "has no balance/weight that is a number of a step ('nan')."),
    ],
)
def test_a_record_of_a_diverged_step_of_another_form_is_refused(tmp_path, record, reason):
    save_metrics(tmp_path, 3, {"balance/weight": 0.5, "loss/total": math.inf})
    assert load_metrics(tmp_path) == {"step": 3, "balance/weight": 0.5, "loss/total": "inf"}
    (file,) = (tmp_path / "diverged").iterdir()
    file.write_text(json.dumps(record))
    with pytest.raises(UnfitFileError) as refused:
        load_metrics(tmp_path)
    assert str(refused.value) == f"{file} {reason}"


def test_a_damaged_state_of_the_loop_is_one_sentence(tmp_path):
    state = TrainingState(step=3, balance=BalanceState(weight=0.5), share=None)
    state.save(tmp_path)
    assert TrainingState.load(tmp_path) == state
    (file,) = tmp_path.iterdir()
    file.write_text("{}")
    with pytest.raises(ConfigError) as refused:
        TrainingState.load(tmp_path)
    assert str(refused.value) == f"{file} is not as a run writes it (it lacks 'share'). Delete {tmp_path}, or restore it."
