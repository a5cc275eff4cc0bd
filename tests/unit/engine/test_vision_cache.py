"""A frozen vision tower runs once a step, with the gradients of two passes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from percasym.engine.vision_cache import VisionCache
from percasym.objectives.coefficients import coefficients, span_counts
from percasym.types import Span

P, R = Span.perception, Span.reasoning
ENGINES = ["torch", "deepspeed", "deepspeed2", "deepspeed3"]


@pytest.fixture(params=["qwen3vl", "internvl35"])
def family_name(request):
    return request.param


@pytest.fixture
def frozen(tiny_model):
    """Makes the same tiny model each time, with a frozen tower."""

    def make():
        model = tiny_model()
        model.get_encoder(modality="image").requires_grad_(False)
        return model

    return make


def counted_forwards(model) -> list[int]:
    """Grows by one with each forward pass of the tower."""
    forwards: list[int] = []
    next(model.get_encoder(modality="image").children()).register_forward_hook(lambda *_: forwards.append(1))
    return forwards


def weigh(engine, window, span, counts):
    for part in window:
        engine.backward(engine.loss(part, coefficients(part.labels, {span: 1.0}, counts))[0])


@pytest.mark.parametrize("name", ENGINES)
def test_two_passes_over_the_same_pictures_give_the_gradients_of_two_forwards(name, make_engine, frozen, tiny_batch, micro_batches):
    batch = tiny_batch()
    counts, window = tuple(span_counts([batch.labels]).tolist()), micro_batches(batch, rows=1)
    found = []
    for once in (False, True):
        engine = make_engine(name, frozen())
        forwards = counted_forwards(engine.model)
        if once:
            with engine.cache_vision():
                weigh(engine, [batch.until(P)], P, counts)
            engine.keep_gradient(P)
            with engine.reuse_vision():
                weigh(engine, window, R, counts)
        else:
            weigh(engine, [batch.until(P)], P, counts)
            engine.keep_gradient(P)
            weigh(engine, window, R, counts)
        engine.keep_gradient(R)
        gramian = engine.gramian()
        found.append((gramian.perception, gramian.reasoning, gramian.cross))
        assert len(forwards) == (1 if once and name != "deepspeed3" else 1 + len(window))
    assert_close(found[1], found[0], rtol=1e-5, atol=0)


@pytest.fixture
def cached(frozen):
    model = frozen()
    return model, VisionCache.of(model)


def test_a_second_pass_over_other_pictures_is_a_defect(cached, tiny_batch, micro_batches):
    model, tower = cached
    whole = tiny_batch()
    with tower.cache_vision():
        model.model(**whole.arguments)
    with pytest.raises(AssertionError, match="fewer pictures"), tower.reuse_vision():
        model.model(**micro_batches(whole, rows=1)[0].arguments)
    with tower.cache_vision():
        model.model(**micro_batches(whole, rows=1)[0].arguments)
    with pytest.raises(AssertionError, match="more pictures"), tower.reuse_vision():
        model.model(**whole.arguments)


def test_afterwards_the_tower_runs_again_unchanged(cached, tiny_batch):
    model, tower = cached
    names = list(model.state_dict())
    with pytest.raises(KeyboardInterrupt), tower.cache_vision():
        raise KeyboardInterrupt
    with tower.cache_vision(), torch.no_grad():
        first = model.model(**tiny_batch().arguments).last_hidden_state
    with tower.reuse_vision(), torch.no_grad():
        assert_close(model.model(**tiny_batch().arguments).last_hidden_state, first)
    forwards = counted_forwards(model)
    model.model(**tiny_batch(seed=1).arguments)
    assert len(forwards) == 1
    assert list(model.state_dict()) == names


def test_a_step_without_pictures_does_not_run_the_tower(cached):
    model, tower = cached
    forwards = counted_forwards(model)
    with tower.cache_vision():
        model.model(input_ids=torch.ones(1, 3, dtype=torch.int64))
    with tower.reuse_vision():
        model.model(input_ids=torch.ones(1, 3, dtype=torch.int64))
    assert forwards == []


def test_a_trained_tower_always_runs(tiny_model, frozen):
    model = frozen()
    next(iter(model.get_encoder(modality="image").parameters())).requires_grad_(True)
    assert VisionCache.of(model) is None
    assert VisionCache.of(tiny_model()) is None
    assert VisionCache.of(frozen()) is not None


def repeated(batch, order):
    """The rows of a batch in this order, rows repeated."""
    each = {name: value.unflatten(0, (len(batch.ids), -1))[order].flatten(0, 1) for name, value in batch.inputs.items()}
    aligned = {name: value[..., order, :] for name, value in batch.aligned.items()}
    return replace(batch, ids=batch.ids[order], mask=batch.mask[order], labels=batch.labels[order], inputs=each, aligned=aligned)


@pytest.mark.parametrize("name", ENGINES)
def test_rollouts_of_a_prompt_share_the_features_of_its_picture_and_have_the_gradients_of_their_own(name, make_engine, frozen, tiny_batch):
    batch = tiny_batch(rows=3)
    window = [([1, 0, 1, 2], "first"), ([2, 2, 0], "second"), ([0, 1], "third")]  # The third forward has no new picture.
    counts, found = (50, 200), []
    for shared in (False, True):
        engine = make_engine(name, frozen())
        forwards = counted_forwards(engine.model)
        with engine.share_vision() as share:
            for order, _ in window:
                part = repeated(batch, order)
                with share(order) if shared else nullcontext():
                    nll = engine.nll(part)
                engine.backward((nll * coefficients(part.labels, {P: 0.5, R: 0.5}, counts)).sum())
        engine.keep_gradient(P)
        weigh(engine, [batch], R, counts)  # Afterwards the tower runs again.
        engine.keep_gradient(R)
        gramian = engine.gramian()
        found.append((gramian.perception, gramian.reasoning, gramian.cross))
        assert len(forwards) == (2 if shared and name != "deepspeed3" else 4)
    assert_close(found[1], found[0], rtol=1e-5, atol=0)
