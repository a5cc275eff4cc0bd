"""Every engine against plain autograd."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from percasym.config.schema import ConfigError
from percasym.config.settings import DeepSpeedSettings
from percasym.engine.checkpoint import load_state, read_state, save_state
from percasym.engine.deepspeed import require_room_to_decode
from percasym.engine.ranks import Ranks
from percasym.objectives.coefficients import coefficients, span_counts
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.types import Span

P, R = Span.perception, Span.reasoning
ENGINES = ["torch", "deepspeed", "deepspeed1", "deepspeed2", "deepspeed3", "deepspeed1-offload", "deepspeed2-offload", "deepspeed3-offload"]


def loss_of(engine, batch, weights, counts=None):
    counts = counts or tuple(span_counts([batch.labels]).tolist())
    return engine.loss(batch, coefficients(batch.labels, weights, counts))[0]


def parameters(engine) -> torch.Tensor:
    with engine.gathered_weights() as model:
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


def vector(parts) -> torch.Tensor:
    """A gradient as one vector, in whatever order the engine holds it."""
    return torch.cat([part.flatten() for part in parts if part is not None]).double()


def train_step(engine, batch, weights, lr=1e-3):
    engine.backward(loss_of(engine, batch, weights))
    return engine.step(lr)


@pytest.mark.parametrize("name", ENGINES)
def test_gradients_of_several_backwards_add_up(name, make_engine, tiny_qwen, tiny_batch):
    engine, batch = make_engine(name, tiny_qwen()), tiny_batch()
    for span, times in ((P, 1), (R, 3)):
        for _ in range(times):
            engine.backward(loss_of(engine, batch, {P: 1.0}))
        engine.keep_gradient(span)
    gramian = engine.gramian()
    assert [gramian.cross, gramian.reasoning] == pytest.approx([3 * gramian.perception, 9 * gramian.perception], rel=1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_a_loss_weighed_beforehand_is_that_weighed_afterwards(name, make_engine, tiny_qwen, tiny_batch):
    engine, batch = make_engine(name, tiny_qwen()), tiny_batch()
    shares = coefficients(batch.labels, {P: 0.3, R: 0.7}, tuple(span_counts([batch.labels]).tolist()))
    loss, nll = engine.loss(batch, shares)
    assert not nll.requires_grad
    engine.backward(loss)
    engine.keep_gradient(P)
    plain = engine.nll(batch)
    assert_close(nll, plain)
    assert_close(loss, (plain * shares).sum())
    engine.backward((plain * shares).sum())
    engine.keep_gradient(R)
    gramian = engine.gramian()
    assert gramian.cosine == pytest.approx(1.0, abs=1e-6)
    assert gramian.perception == pytest.approx(gramian.reasoning, rel=1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_the_gramian_is_that_of_the_two_gradients(name, make_engine, tiny_qwen, tiny_batch):
    engine, batch, model = make_engine(name, tiny_qwen()), tiny_batch(), tiny_qwen()
    expected = {}
    for span in Span:
        nll = TokenNll(model)(supervised(batch.labels), **batch.arguments)
        loss = (nll * coefficients(batch.labels, {span: 1.0}, tuple(span_counts([batch.labels]).tolist()))).sum()
        expected[span] = vector(torch.autograd.grad(loss, list(model.parameters())))
        engine.backward(loss_of(engine, batch, {span: 1.0}))
        engine.keep_gradient(span)
    gramian = engine.gramian()
    products = [float(expected[a] @ expected[b]) for a, b in ((P, P), (R, R), (P, R))]
    assert [gramian.perception, gramian.reasoning, gramian.cross] == pytest.approx(products, rel=1e-5)
    engine.combine({P: 0.3, R: 0.7})
    combined = 0.3 * expected[P] + 0.7 * expected[R]
    assert engine.step(1e-3).grad_norm == pytest.approx(float(combined.norm()), rel=1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_a_combined_gradient_updates_like_the_gradient_of_the_combined_loss(name, make_engine, tiny_qwen, tiny_batch):
    whole, parts, batch = make_engine(name, tiny_qwen()), make_engine(name, tiny_qwen()), tiny_batch()
    for _ in range(2):  # Twice: what was set aside must not leak into the next step.
        first = train_step(whole, batch, {P: 0.3, R: 0.7})
        for span in Span:
            parts.backward(loss_of(parts, batch, {span: 1.0}))
            parts.keep_gradient(span)
        parts.gramian()
        parts.combine({P: 0.3, R: 0.7})
        second = parts.step(1e-3)
        assert second.grad_norm == pytest.approx(first.grad_norm, rel=1e-4)
    # Adam divides by the gradient's own size, so where that is rounding noise a parameter may move by up to a learning rate.
    gaps = (parameters(parts) - parameters(whole)).abs()
    assert float(gaps.quantile(0.999)) < 1e-6


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("limit", "scale"), [(0.0, 1.0), (1e9, 1.0), (0.5, None)])
def test_the_gradient_is_clipped_at_the_limit_and_only_there(name, limit, scale, make_engine, tiny_qwen, tiny_batch):
    # Adam's first moment after one step is (1 - beta1) times the clipped gradient; betas are (0.9, 0.95).
    engine, batch = make_engine(name, tiny_qwen(), max_grad_norm=limit), tiny_batch()
    info = train_step(engine, batch, {P: 0.5, R: 0.5})
    assert info.grad_norm > 1  # So that a hidden default limit of 1 would show.
    moments = torch.cat([state["exp_avg"].flatten() for state in engine._updater.state_dict()["state"].values()])
    expected = limit if scale is None else info.grad_norm
    assert float(moments.norm()) / 0.1 == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["deepspeed1", "deepspeed2", "deepspeed3"])
def test_deepspeed_takes_no_norm_of_its_own(name, make_engine, tiny_qwen, tiny_batch, monkeypatch):
    """It would convert this rank's gradient to float64: 8 GB for 1e9 elements, which no plan counts."""
    engine, batch = make_engine(name, tiny_qwen()), tiny_batch()

    def taken() -> None:
        pytest.fail("a norm is taken")

    for home in ("stage3", "stage_1_and_2"):
        monkeypatch.setattr(f"deepspeed.runtime.zero.{home}.get_norm_dtype", taken)
    assert train_step(engine, batch, {P: 0.5, R: 0.5}).grad_norm > 0


@pytest.mark.parametrize("name", ENGINES)
def test_the_step_uses_the_learning_rate_it_is_given(name, make_engine, tiny_qwen, tiny_batch):
    engine, batch = make_engine(name, tiny_qwen()), tiny_batch()
    before = parameters(engine)
    assert train_step(engine, batch, {P: 0.5, R: 0.5}, lr=0.0).lr == 0.0
    assert torch.equal(parameters(engine), before)
    train_step(engine, batch, {P: 0.5, R: 0.5}, lr=1e-2)
    moved = (parameters(engine) - before).abs().max()
    assert 5e-3 < moved < 2e-2  # Adam moves about one learning rate a step.


@pytest.mark.parametrize("name", ENGINES)
def test_a_resumed_engine_goes_on_as_if_it_had_never_stopped(name, make_engine, tiny_qwen, tiny_batch, tmp_path):
    weights = {P: 0.5, R: 0.5}
    engine = make_engine(name, tiny_qwen())
    train_step(engine, tiny_batch(seed=1), weights)
    engine.save(tmp_path)
    drawn = torch.rand(3)
    train_step(engine, tiny_batch(seed=2), weights)

    resumed = make_engine(name, tiny_qwen(seed=9))
    resumed.load(tmp_path)
    assert torch.equal(torch.rand(3), drawn)
    train_step(resumed, tiny_batch(seed=2), weights)
    assert_close(parameters(resumed), parameters(engine), rtol=0, atol=0)


def test_a_checkpoint_loads_with_plain_transformers(make_engine, tiny_qwen, tmp_path):
    from transformers import AutoModelForImageTextToText

    engine = make_engine("torch", tiny_qwen())
    engine.save(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), engine.model.parameters(), strict=True))
    assert not list(tmp_path.glob("model/*.bin"))


def test_a_directory_without_a_checkpoint_is_named(make_engine, tiny_qwen, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a checkpoint"):
        make_engine("torch", tiny_qwen()).load(tmp_path)


def test_only_matrices_decay(tiny_qwen):
    from percasym.config.paradigm import Sft
    from percasym.engine.torch import adamw

    matrices, rest = adamw(tiny_qwen(), Sft(steps=1, batch_size=1, micro_batch_size=1, lr=1e-3, weight_decay=0.1)).param_groups
    assert (matrices["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    assert {parameter.ndim for parameter in rest["params"]} == {1}
    assert len(matrices["params"]) + len(rest["params"]) == len(list(tiny_qwen().parameters()))


@pytest.mark.parametrize("name", ["torch", "deepspeed", "deepspeed2", "deepspeed3"])
def test_the_vision_tower_learns_at_a_rate_of_its_own(name, make_engine, tiny_qwen, tiny_batch):
    """The first step of AdamW moves each weight by its learning rate (Adam's ratio of moments is 1), whatever the gradient."""
    model = tiny_qwen()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    vision = [name for name in before if name.startswith("model.visual.") and "merger" not in name]
    engine = make_engine(name, model, vision=vision, lr=1e-3, lr_vision=1e-4)
    train_step(engine, tiny_batch(), {P: 0.5, R: 0.5}, lr=5e-4)  # Half of the peak, as in a warm-up.
    with engine.gathered_weights() as after:
        moved = {name: float((weight.detach() - before[name]).abs().max()) for name, weight in after.named_parameters()}
    own = [moved[name] for name in vision if moved[name]]
    rest = [moved[name] for name in moved if name not in vision and moved[name]]
    assert own and rest
    assert max(own) == pytest.approx(5e-5, rel=1e-2) and max(rest) == pytest.approx(5e-4, rel=1e-2)


def test_a_frozen_parameter_stays_where_it_is(make_engine, tiny_qwen, tiny_batch):
    model = tiny_qwen()
    model.model.visual.requires_grad_(False)
    engine = make_engine("torch", model)
    before = parameters(engine)
    train_step(engine, tiny_batch(), {P: 0.5, R: 0.5})
    frozen = torch.cat([torch.full_like(p, not p.requires_grad).flatten() for p in model.parameters()]).bool()
    moved = parameters(engine) != before
    assert not moved[frozen].any()
    assert moved[~frozen].any()


def test_bfloat16_is_refused_on_a_gpu_that_emulates_it(monkeypatch):
    from percasym.engine.precision import compute_dtype

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert compute_dtype("auto", cpu) == compute_dtype("float32", cpu) == torch.float32
    assert compute_dtype("bfloat16", cpu) == torch.bfloat16, "what a GPU would compute, slowly"
    for native in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert compute_dtype("auto", gpu) == (torch.bfloat16 if native else torch.float32)
    with pytest.raises(ValueError, match=r"^engine\.precision=bfloat16 needs a GPU that computes it natively"):
        compute_dtype("bfloat16", gpu)


def test_engine_settings_name_what_they_allow():
    from percasym.config.settings import DeepSpeedSettings, TorchSettings

    with pytest.raises(ValueError, match=r"^engine\.zero_stage must be 0, 1, 2 or 3, got 4\.$"):
        DeepSpeedSettings(zero_stage=4)
    with pytest.raises(ValueError, match=r"^engine\.offload=true needs engine\.zero_stage of 1, 2 or 3"):
        DeepSpeedSettings(offload=True)
    with pytest.raises(ValueError, match=r"^engine\.precision must be one of auto, float32, bfloat16, got 'half'\.$"):
        TorchSettings(precision="half")


def test_an_open_gradient_is_never_overwritten(make_engine, tiny_qwen, tiny_batch):
    engine, batch = make_engine("torch", tiny_qwen()), tiny_batch()
    for span in Span:
        engine.backward(loss_of(engine, batch, {span: 1.0}))
        engine.keep_gradient(span)
    with pytest.raises(AssertionError, match="two gradients are kept: combine them"):
        engine.backward(loss_of(engine, batch, {P: 1.0}))


def test_a_span_that_does_not_reach_a_parameter_adds_nothing_to_it(make_engine, tiny_qwen, tiny_batch):
    engine, batch = make_engine("torch", tiny_qwen()), tiny_batch()
    text = replace(batch, ids=batch.ids.clamp(max=58), inputs={})
    for span, part in ((P, batch), (R, text)):  # Without a picture no gradient reaches the vision tower.
        engine.backward(loss_of(engine, part, {span: 1.0}))
        engine.keep_gradient(span)
    assert engine.gramian().reasoning > 0
    engine.combine({P: 0.5, R: 0.5})
    assert all(parameter.grad is not None for parameter in engine.model.parameters())


def test_one_process_starts_deepspeed_without_compiling_or_chatter(tmp_path):
    program = (
        "import torch\n"
        "from percasym.engine.deepspeed import _start\n"
        "deepspeed = _start(torch.device('cpu'))\n"
        "deepspeed.comm.init_distributed('gloo')\n"
        "assert deepspeed.comm.get_world_size() == 1\n"
    )
    launcher = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "DS_ACCELERATOR")
    outside = {name: value for name, value in os.environ.items() if name not in launcher} | {"TORCH_EXTENSIONS_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=outside, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_only_fits_in_parts_is_refused_before_it_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, model = torch.device("cuda", 0), torch.nn.Linear(10**5, 10**5, bias=False, device="meta")  # 10^10 weights: 40 GB in float32.
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=40 * 10**9))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    with pytest.raises(ConfigError, match=r"evaluating gathers 40 GB of weights on each device, which has 40 GB\. Set evaluation"):
        require_room_to_decode(model, DeepSpeedSettings(zero_stage=3), gpu)
    lower = {"weights": "bfloat16", "precision": "bfloat16"}
    require_room_to_decode(model, DeepSpeedSettings(zero_stage=3, **lower), gpu)  # 20 GB.
    require_room_to_decode(model, DeepSpeedSettings(zero_stage=2), gpu)
    require_room_to_decode(model, DeepSpeedSettings(zero_stage=3), torch.device("cpu"))


class Nothing:
    """An optimizer without a state."""

    split = False

    def state_dict(self):
        return {"step": 3}

    def layout(self):
        return []

    def load_state_dict(self, state):
        self.loaded = state


def test_the_random_state_of_a_gpu_is_restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ranks, updater, restored = Ranks(0, 1, torch.device("cuda", 1)), Nothing(), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([device.index, 7], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: restored.append(state.tolist()))
    save_state(tmp_path, ranks, updater)
    load_state(read_state(tmp_path, ranks, updater), updater)
    assert (restored, updater.loaded) == ([[1, 7]], {"step": 3})


@pytest.mark.parametrize("written", [0, "two", 10**6])
def test_a_number_of_processes_that_is_none_is_damage(tmp_path: Path, written: object) -> None:
    ranks = Ranks(0, 1, torch.device("cpu"))
    torch.save({"num_ranks": written, "random": torch.get_rng_state(), "optimizer": {}}, tmp_path / "engine.pt")
    with pytest.raises(ConfigError, match=rf"engine\.pt cannot be read: it gives {written!r} as the number of processes\. Restore it\."):
        read_state(tmp_path, ranks, Nothing())
    with pytest.raises(FileNotFoundError, match=r"holds no engine\.pt, so it is not a checkpoint of a run\."):
        read_state(tmp_path / "none", ranks, Nothing())
