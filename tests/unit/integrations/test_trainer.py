"""BalancedTrainer: the same curve as percasym's own loop, its logs, evaluations and checkpoints, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch

from percasym.balance.registry import balancer
from percasym.config.schema import ConfigError
from percasym.integrations.forward import span_labels, until_perception
from percasym.types import Span

QUICK = [("none", 1), ("ngdiff", 1), ("ngdiff", 4)]
SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in (("none", 4), ("fixed", 1), ("fixed", 4))]


@pytest.mark.parametrize(("name", "accumulation"), [*QUICK, *SLOW])
def test_twenty_steps_have_the_curve_of_the_own_loop(
    name, accumulation, windows, own_loop, make_trainer, logged, assert_same_curve
) -> None:
    steps = windows(micro=accumulation)
    ours, model = own_loop(steps, balancer(name))
    trainer = make_trainer(steps, name, accumulation=accumulation)
    trainer.train()
    assert_same_curve(logged(trainer), ours)
    gap = max(float((a - b).detach().abs().max()) for a, b in zip(trainer.model.parameters(), model.parameters(), strict=True))
    assert gap < 1e-3


def test_the_two_loops_differ_where_the_weight_does(windows, own_loop, make_trainer, logged, assert_same_curve) -> None:
    steps = windows(steps=3)
    ours, _ = own_loop(steps, balancer("ngdiff"))
    trainer = make_trainer(steps, "none")
    trainer.train()
    with pytest.raises(AssertionError):
        assert_same_curve(logged(trainer), ours)


def test_a_resumed_run_goes_on_with_the_memory_of_its_strategy(windows, make_trainer, logged, tmp_path) -> None:
    steps = windows(steps=4)
    options = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 4}
    whole = make_trainer(steps, "famo", **options)
    whole.train()
    again = make_trainer(steps, "famo", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    weights = [line["balance/weight"] for line in logged(whole)]
    assert weights[2:] != [0.5, 0.5]
    assert [line["balance/weight"] for line in logged(again)][-2:] == pytest.approx(weights[2:], rel=1e-4)


@pytest.mark.parametrize("other", ["none", "gradnorm"])
def test_a_checkpoint_is_not_resumed_under_another_strategy(windows, make_trainer, tmp_path, other) -> None:
    steps, options = windows(steps=2), {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 4}
    make_trainer(steps, "fixed", **options).train()
    again = make_trainer(steps, other, **options)
    sentence = (
        r"The checkpoint was written under Fixed\(weight=.*\), and this trainer has \w+\(.*\)\. Resume with the same strategy, or begin"
    )
    with pytest.raises(ConfigError, match=sentence):
        again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))


def test_a_strategy_is_one_or_its_name(windows, make_trainer) -> None:
    with pytest.raises(ValueError, match=r"got 0\.5\. For a constant weight pass percasym\.Fixed\(weight=0\.5\)\."):
        make_trainer(windows(steps=1), 0.5)
    with pytest.raises(ValueError, match="balance must be a strategy, or the name of one, got None"):
        make_trainer(windows(steps=1), None)


def test_a_log_line_of_several_steps_has_their_means(windows, make_trainer, logged) -> None:
    steps = windows(steps=4)
    every, second = make_trainer(steps, "fixed"), make_trainer(steps, "fixed", logging_steps=2)
    every.train()
    second.train()
    losses = [line["loss/perception"] for line in logged(every)]
    means = [line["loss/perception"] for line in logged(second)]
    assert means == pytest.approx([sum(losses[:2]) / 2, sum(losses[2:]) / 2], rel=1e-5)
    assert "grad/perception" in logged(second)[0]  # Of the first step alone.
    assert "grad/perception" not in logged(second)[1]


def test_a_frozen_tower_sees_the_pictures_of_a_step_once(windows, make_trainer, tiny_model) -> None:
    calls = []
    model = tiny_model()
    model.model.visual.requires_grad_(False)
    own = model.model.visual.blocks[0].forward
    model.model.visual.blocks[0].forward = lambda *args, **kwargs: calls.append(1) or own(*args, **kwargs)
    trainer = make_trainer(windows(steps=2, micro=2), "ngdiff", accumulation=2, model=model)
    trainer._checked = True
    trainer.train()
    assert len(calls) == 4  # Two steps of two micro-batches, each in the first pass only.


def test_a_copied_model_has_a_forward_of_its_own(windows, make_trainer) -> None:
    trainer = make_trainer(windows(steps=1), "none")
    twin = copy.deepcopy(trainer.model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    batch = windows(steps=1)[0][0]
    logits = twin(input_ids=batch.ids, **batch.inputs, **batch.aligned).logits
    assert float(logits.detach().abs().max()) == 0.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor changes the loss of a token"),
        ({"use_liger_kernel": False, "torch_compile": True}, "torch_compile is not supported"),
    ],
)
def test_options_that_change_the_objective_are_refused(options, sentence, windows, make_trainer) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_trainer(windows(steps=1), "none", **options)


def test_an_unknown_strategy_is_refused_by_name(windows, make_trainer) -> None:
    with pytest.raises(ValueError, match=r"aligned, cagrad, .*upgrad; got 'balanced'\."):
        make_trainer(windows(steps=1), "balanced")


def test_a_head_that_scales_its_logits_is_refused(windows, make_trainer, tiny_model) -> None:
    model = tiny_model()
    own = model.forward

    def scaled(**inputs):
        output = own(**inputs)
        output.logits = output.logits * 0.5
        return output

    model.forward = scaled
    trainer = make_trainer(windows(steps=1), "none", model=model)
    with pytest.raises(ConfigError, match="its head does more than a matrix product"):
        trainer.train()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda batch: batch.pop("spans"), "The batch has no column spans"),
        (lambda batch: batch["spans"].fill_(7), r"has a label and span 7; a span is 0 \(perception\) or 1 \(reasoning\)"),
        (lambda batch: batch.update(labels=batch["labels"].where(batch["labels"] < 0, 1)), "labels differ from input_ids"),
        (lambda batch: batch.update(spans=batch["spans"][:, :3]), "spans must have the shape of labels"),
    ],
)
def test_batches_that_cannot_be_balanced_are_refused(change, sentence, tiny_batch) -> None:
    batch = tiny_batch()
    inputs = {"input_ids": batch.ids, "labels": batch.ids.masked_fill(batch.labels < 0, -100), "spans": batch.labels.clone()}
    assert torch.equal(span_labels(inputs), batch.labels)
    change(inputs)
    with pytest.raises(ConfigError, match=sentence):
        span_labels(inputs)


def test_a_prefix_keeps_every_picture_and_every_token_of_perception(tiny_batch) -> None:
    batch = tiny_batch()
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, **batch.inputs, **batch.aligned}
    cut = until_perception(inputs, batch.labels, frozenset())
    stop = int((batch.labels == 0).any(0).nonzero()[-1]) + 1
    assert cut["input_ids"].shape == (4, stop)
    assert cut["position_ids"].shape == (3, 4, stop)
    assert cut["pixel_values"] is inputs["pixel_values"]
    late = batch.ids.clone()
    late[0, -1] = 60
    assert until_perception(inputs | {"input_ids": late}, batch.labels, frozenset({60}))["input_ids"].shape == batch.ids.shape
    with pytest.raises(ConfigError, match=r"it is not known whether it can be cut with the tokens"):
        until_perception(inputs | {"mystery": torch.zeros(batch.ids.shape)}, batch.labels, frozenset())


def test_packed_rows_are_not_cut(tiny_batch) -> None:
    batch = tiny_batch()
    inputs = {"input_ids": batch.ids, "cu_seq_lens_q": torch.tensor([0, 5])}
    with pytest.raises(ConfigError, match=r"Packed rows \(padding_free, packing\) cannot be cut to their perception\. Pad the rows"):
        until_perception(inputs, batch.labels, frozenset())
    nothing = torch.where(batch.labels == Span.perception, Span.reasoning, batch.labels)
    assert until_perception(inputs, nothing, frozenset()) == inputs, "a step without perception has no prefix"


def test_a_negative_period_of_measurements_is_refused(windows, make_trainer) -> None:
    with pytest.raises(ConfigError, match=r"probe_every must be at least 0, or None, got -1\."):
        make_trainer(windows(steps=1), "none", probe_every=-1)


def test_an_evaluation_without_spans_is_the_trainers_own_and_predictions_have_both(windows, make_trainer) -> None:
    trainer = make_trainer(windows(steps=1), "none")
    whole, predicted = trainer.evaluate(), trainer.predict(trainer.eval_dataset)
    assert set(whole) >= {"eval_loss", "eval_loss/perception", "eval_loss/reasoning"}
    assert predicted.metrics["test_loss/perception"] == pytest.approx(whole["eval_loss/perception"])
    assert predicted.predictions.shape[:2] == predicted.label_ids.shape
    collate = trainer.data_collator
    trainer.data_collator = lambda features: {name: value for name, value in collate(features).items() if name != "spans"}
    plain = trainer.evaluate()
    assert plain["eval_loss"] == pytest.approx(whole["eval_loss"], rel=1e-4)
    assert not any(name.startswith("eval_loss/") for name in plain)


def test_the_column_of_spans_is_kept_among_those_of_the_model(windows, make_trainer, tmp_path) -> None:
    trainer = make_trainer(windows(steps=1), "none", remove_unused_columns=True)
    for _ in range(2):
        trainer._set_signature_columns_if_needed()
    assert trainer._signature_columns.count("spans") == 1 and "input_ids" in trainer._signature_columns
