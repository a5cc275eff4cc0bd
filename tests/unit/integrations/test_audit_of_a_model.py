"""`percasym.audit(model, rows)`: the numbers of the first step of the own loop, and a model that is left as it was."""

from __future__ import annotations

import pytest
import torch

from percasym import audit
from percasym.balance.registry import balancer
from percasym.config.schema import ConfigError
from percasym.models.adapt import part_of
from percasym.models.parts import parts_of
from percasym.models.qwen3vl import Qwen3VL
from tests.unit.integrations.conftest import as_inputs

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft uses the deprecated name.


@pytest.fixture
def rows(windows):
    return [batch for window in windows(steps=1, micro=4) for batch in window]


def test_it_measures_what_the_first_step_of_the_own_loop_logs(rows, own_loop, tiny_model) -> None:
    logged, _ = own_loop([rows], balancer("ngdiff"))
    found = audit(tiny_model(), rows, as_inputs)
    line = logged[0]
    assert found.stats.counts == (line["tokens/perception"], line["tokens/reasoning"])
    assert found.stats.losses == pytest.approx((line["loss/perception"], line["loss/reasoning"]), rel=1e-5)
    assert found.stats.gramian.norms == pytest.approx((line["grad/perception"], line["grad/reasoning"]), rel=1e-4)
    assert found.ngdiff == pytest.approx(line["balance/weight"], rel=1e-4)
    assert found.num_samples == 8
    assert 'balance="ngdiff"' in found.advice() and "model." not in found.advice(), "in the words of BalancedTrainer"
    whole = sum(gramian.perception for gramian in found.groups.values())
    assert set(found.groups) == {"language", "projector", "vision"}
    assert whole == pytest.approx(found.stats.gramian.perception, rel=1e-6)


def test_batches_and_rows_with_a_collator_are_the_same(rows, tiny_model) -> None:
    found = [audit(tiny_model(), [as_inputs([row]) for row in rows]), audit(tiny_model(), rows, as_inputs)]
    assert found[0] == found[1]


def test_answers_and_steps_reach_the_advice(rows, tiny_model) -> None:
    answers = [(True, True)] * 25 + [(False, False)] * 25
    advice = audit(tiny_model(), rows, as_inputs, answers=iter(answers), num_steps=400).advice()
    assert 'Times 400 steps that is 400.0, and our rule expects balance="ngdiff" to raise a' in advice


def test_the_model_is_left_as_it_was(rows, tiny_model) -> None:
    model = tiny_model().train()
    weight = model.model.language_model.norm.weight
    weight.grad = torch.full_like(weight, 7.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    audit(model, rows, as_inputs)
    assert model.training and "forward" not in vars(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert float(weight.grad.min()) == 7.0
    assert all(other.grad is None for other in model.parameters() if other is not weight)


def test_a_model_with_adapters_of_peft_is_measured_by_its_trained_weights(rows, tiny_model) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    found = audit(model, rows, as_inputs)
    assert set(found.groups) == {"language"}
    assert min(found.stats.gramian.norms) > 0


def test_a_slice_of_a_dataset_is_no_rows(tiny_model) -> None:
    with pytest.raises(ConfigError, match=r"rows is a mapping of columns \(image, query\), as a slice of a datasets\.Dataset is"):
        audit(tiny_model(), {"image": [1, 2], "query": ["a", "b"]}, as_inputs)


def test_what_cannot_be_measured_is_refused(rows, tiny_model) -> None:
    with pytest.raises(ConfigError, match="needs at least one row"):
        audit(tiny_model(), [])
    with pytest.raises(ConfigError, match="The batch has no column spans"):
        audit(tiny_model(), [{"input_ids": rows[0].ids, "labels": rows[0].ids}])
    with pytest.raises(ConfigError, match="num_steps must be at least 1, got 0"):
        audit(tiny_model(), rows, as_inputs, num_steps=0)
    with pytest.raises(ConfigError, match=r"answers must be pairs .*, got True"):
        audit(tiny_model(), rows, as_inputs, answers=[True, False])
    with pytest.raises(ConfigError, match="No parameter of Qwen3VLForConditionalGeneration is trained"):
        audit(tiny_model().requires_grad_(False), rows, as_inputs)


@pytest.mark.parametrize("name", ["qwen3vl", "internvl35"])
def test_the_parts_read_from_a_model_are_those_that_its_family_names(name, tiny_qwen, tiny_internvl) -> None:
    from percasym.models.internvl35 import InternVL35

    model, family = (tiny_qwen(), Qwen3VL) if name == "qwen3vl" else (tiny_internvl(), InternVL35)
    found = parts_of(model)
    for parameter, _ in model.named_parameters():
        assert part_of(parameter, found) == part_of(parameter, family.parts), parameter
