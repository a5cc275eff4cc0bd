"""Fixtures that compare the bytes of a plan with those that a model really holds, for both families."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType

import pytest
import torch

from percasym.models import internvl35, qwen3vl
from percasym.models.adapt import PARTS, Adaptation, Lora, PartModules, adapt
from percasym.models.anatomy import Anatomy
from percasym.models.internvl35 import InternVL35
from percasym.models.qwen3vl import Qwen3VL
from percasym.plan.inputs import Answers, Layout, Parameters, count_parameters
from percasym.types import Span

FAMILIES = {"qwen3vl": Qwen3VL, "internvl35": InternVL35}
ANATOMIES = {"qwen3vl": qwen3vl.anatomy, "internvl35": internvl35.anatomy}


@pytest.fixture(params=list(FAMILIES))
def family_name(request) -> str:
    """Tests of models run over both families."""
    return request.param


@pytest.fixture(autouse=True)
def plain_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own linear: an engine under ZeRO-3 leaves DeepSpeed's in its place for the rest of the process."""
    monkeypatch.setattr(torch.nn.functional, "linear", torch._C._nn.linear)


@pytest.fixture
def parts(family_name) -> PartModules:
    """The modules of each part."""
    return FAMILIES[family_name].parts


@pytest.fixture
def anatomy_of(family_name) -> Callable[..., Anatomy]:
    """The anatomy of a live model: `anatomy_of(model)`."""
    return lambda model: ANATOMIES[family_name](json.loads(model.config.to_json_string(use_diff=False)), None)


@pytest.fixture
def layout() -> Layout:
    """Four rows of demonstrations in float32 on one rank."""
    return Layout(
        num_ranks=1, zero_stage=0, offload=False, computing_bytes=4, checkpointing=False, eager=False, adapters=False, rows=4, step_rows=4,
        measures_gradients=True, eval_bytes=4, evaluation=Answers(rows=4, prompts=4, max_new_tokens=8), sampled=None,
    )  # fmt: skip


@pytest.fixture
def lora(request) -> Lora | None:
    """None, or adapters on every part where a test is parametrized with `lora`."""
    return Lora(rank=8, targets=PARTS) if getattr(request, "param", None) == "lora" else None


@pytest.fixture
def states_held(tiny_model, tiny_batch, make_engine, parts, anatomy_of, lora) -> Callable[..., tuple[Parameters, Mapping[str, int]]]:
    """What an engine of the tiny model holds before its second step, a span's gradient set aside and the other open: `states_held(name)`.

    The model's parameters, and the bytes of weights, master weights, optimizer, and both gradients together, reduced over ranks.
    """
    from percasym.engine.ranks import SINGLE_RANK
    from percasym.objectives.coefficients import coefficients, span_counts

    def held(name: str, ranks=SINGLE_RANK):
        import torch

        batch, before = tiny_batch(), float_bytes(torch)
        model = adapt(tiny_model(), Adaptation(lora=lora), parts)
        parameters = count_parameters(anatomy_of(model), Adaptation(lora=lora))
        engine = make_engine(name, model, ranks)
        counts = tuple(span_counts([batch.labels]).tolist())
        for finished in (True, False):  # A whole step first, so that AdamW has its state; then up to before the next.
            for span in (Span.perception, Span.reasoning):
                engine.backward(engine.loss(batch, coefficients(batch.labels, {span: 1.0}, counts))[0])
                if finished or span is Span.perception:
                    engine.keep_gradient(span)
            if finished:
                engine.combine(dict.fromkeys(Span, 0.5))
                engine.step(1e-3)
        updater = engine._updater
        updater.gradient()
        found = {
            "weights": storage_bytes(getattr(parameter, "ds_tensor", parameter) for parameter in model.parameters()),
            "master weights": storage_bytes(getattr(updater, "_masters", ())),
            "optimizer": storage_bytes(value for state in updater._optimizer.state.values() for value in state.values()),
        }
        return parameters, {**found, "both gradients": float_bytes(torch) - before - sum(found.values())}

    return held


def float_bytes(torch: ModuleType) -> int:
    """Bytes of all float tensors of this process."""
    gc.collect()
    return storage_bytes(thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor) and not thing.is_meta)


def storage_bytes(tensors: Iterable) -> int:
    """Bytes below float tensors but scalars and ZeRO's bucket, each storage once."""
    storages = {}
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.ndim:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(size for size in storages.values() if 256 < size < 10**9)
