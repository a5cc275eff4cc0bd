"""The loss of each token is that of the plain model, in less memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from percasym.objectives.token_nll import TokenNll, supervised
from percasym.types import UNSUPERVISED

SMALL = 4 * 61 * 10  # Bytes of the logits of ten tokens: the batches here need about seven chunks.


@pytest.fixture(params=["qwen3vl", "internvl35"])
def family_name(request):
    return request.param


def naive(model, batch, temperature=1.0):
    """[B, T] losses from the logits of the whole sequence."""
    logits = model(**batch.arguments).logits[:, :-1].float() / temperature
    nll = cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none").view_as(batch.ids[:, 1:])
    return torch.nn.functional.pad(nll, (1, 0)) * (batch.labels != UNSUPERVISED)


def assert_same_gradients(ours, theirs, rel=1e-5):
    """Each parameter's gradient within `rel` of its own norm."""
    assert ours.keys() == theirs.keys()
    gaps = {name: float((ours[name] - theirs[name]).norm() / theirs[name].norm()) for name in theirs}
    assert max(gaps.values()) < rel, max(gaps.items(), key=lambda item: item[1])


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.fixture(params=["beforehand", "afterwards"])
def weighed(request):
    """The losses of a batch and their weighted sum, with coefficients passed to the module or applied afterwards."""

    def run(module, batch, weights):
        if request.param == "beforehand":
            loss, nll = module(supervised(batch.labels), weights, **batch.arguments)
            return nll, loss
        nll = module(supervised(batch.labels), **batch.arguments)
        return nll, (nll * weights).sum()

    return run


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk_bytes", [SMALL, 2**27])
def test_token_losses_and_gradients_are_those_of_the_whole_logits(tiny_model, tiny_batch, weighed, tied, chunk_bytes):
    ours, theirs, batch = tiny_model(tied=tied), tiny_model(tied=tied), tiny_batch()
    weights = torch.rand(batch.ids.shape, generator=torch.Generator().manual_seed(1))
    nll, loss = weighed(TokenNll(ours, chunk_bytes=chunk_bytes), batch, weights)
    expected = naive(theirs, batch)
    assert_close(nll, expected, rtol=1e-5, atol=1e-6)
    assert_close(loss, (expected * weights).sum(), rtol=1e-5, atol=1e-6)
    (-3 * loss).backward()
    (-3 * (expected * weights).sum()).backward()
    assert_same_gradients(gradients(ours), gradients(theirs))


@pytest.mark.parametrize("chunk_bytes", [SMALL, 2**27])
@pytest.mark.parametrize("bias", [False, True])
def test_a_temperature_divides_the_logits(tiny_model, tiny_batch, weighed, bias, chunk_bytes):
    batch, models = tiny_batch(), (tiny_model(tied=False), tiny_model(tied=False))
    if bias:  # Takes the general path, which the hidden states cannot be scaled for.
        for model in models:
            model.lm_head.bias = torch.nn.Parameter(torch.linspace(-1, 1, 61))
    ours, theirs = models
    nll, loss = weighed(TokenNll(ours, temperature=0.7, chunk_bytes=chunk_bytes), batch, torch.ones(batch.ids.shape))
    expected = naive(theirs, batch, temperature=0.7)
    assert_close(nll, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.sum().backward()
    assert_same_gradients(gradients(ours), gradients(theirs))


def test_an_unsupervised_token_has_no_loss(tiny_model, tiny_batch):
    batch = tiny_batch()
    nll = TokenNll(tiny_model())(supervised(batch.labels), **batch.arguments)
    assert (nll[batch.labels == UNSUPERVISED] == 0).all()
    assert (nll[batch.labels != UNSUPERVISED] > 0).all()


def test_logits_exist_for_one_chunk_at_a_time(tiny_model, tiny_batch, weighed):
    vocabulary = 4099  # A width that nothing but logits and the head's weight has.
    batch, model = tiny_batch(), TokenNll(tiny_model(vocabulary=vocabulary), chunk_bytes=4 * vocabulary * 10)
    heights = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            heights.update(x.shape[0] for x in tree_leaves(result) if isinstance(x, torch.Tensor) and x.shape[-1:] == (vocabulary,))
            return result

    with Watch():
        weighed(model, batch, torch.ones(batch.ids.shape))[1].backward()
    assert supervised(batch.labels).numel() > 60
    logits = heights - {32}  # The transposed weight of the head has 32 rows.
    assert logits
    assert max(logits) <= 10


def test_bfloat16_stays_near_float32(tiny_model, tiny_batch):
    batch, at = tiny_batch(), supervised(tiny_batch().labels)
    models = tiny_model(), tiny_model()
    exact = TokenNll(models[0])(at, **batch.arguments)
    coarse = TokenNll(models[1], dtype=torch.bfloat16, chunk_bytes=SMALL)(at, **batch.arguments)
    assert coarse.dtype == torch.float32
    assert_close(coarse.sum(), exact.sum(), rtol=1e-2, atol=0)
    assert not torch.equal(coarse, exact)
    (exact.sum() + coarse.sum()).backward()
    ours, theirs = (torch.cat([value.flatten() for value in gradients(model).values()]) for model in reversed(models))
    assert ours.dtype == torch.float32  # The weights stay float32, and so do their gradients.
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.999


@pytest.mark.parametrize("chunk_bytes", [SMALL, 2**27])
def test_a_frozen_head_still_lets_the_gradient_through(tiny_model, tiny_batch, weighed, chunk_bytes):
    ours, theirs, batch = tiny_model(tied=False), tiny_model(tied=False), tiny_batch()
    ours.lm_head.requires_grad_(False)
    weighed(TokenNll(ours, chunk_bytes=chunk_bytes), batch, torch.ones(batch.ids.shape))[1].backward()
    naive(theirs, batch).sum().backward()
    assert_same_gradients(gradients(ours), {k: v for k, v in gradients(theirs).items() if k != "lm_head.weight"})


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # Called by peft.
@pytest.mark.parametrize("chunk_bytes", [SMALL, 2**27])
def test_a_head_that_carries_adapters_trains_them(tiny_model, tiny_batch, weighed, chunk_bytes):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["lm_head", "q_proj"], init_lora_weights=False)
    torch.manual_seed(3)
    ours = get_peft_model(tiny_model(tied=False), config).get_base_model()
    torch.manual_seed(3)
    theirs = get_peft_model(tiny_model(tied=False), config).get_base_model()
    batch = tiny_batch()
    weighed(TokenNll(ours, chunk_bytes=chunk_bytes), batch, torch.ones(batch.ids.shape))[1].backward()
    naive(theirs, batch).sum().backward()
    assert any("lm_head.lora_B" in name for name in gradients(ours))
    assert_same_gradients(gradients(ours), gradients(theirs))


def test_a_second_backward_is_refused_rather_than_wrong(tiny_model, tiny_batch):
    batch = tiny_batch()
    loss, _ = TokenNll(tiny_model())(supervised(batch.labels), torch.ones(batch.ids.shape), **batch.arguments)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="was taken already"):
        loss.backward()


@pytest.mark.parametrize("chunk_bytes", [SMALL, 2**27])
def test_a_second_backward_through_losses_adds_the_same_gradient(tiny_model, tiny_batch, chunk_bytes):
    batch, model = tiny_batch(), tiny_model()
    loss = TokenNll(model, chunk_bytes=chunk_bytes)(supervised(batch.labels), **batch.arguments).sum()
    loss.backward(retain_graph=True)
    once = {name: gradient.clone() for name, gradient in gradients(model).items()}
    loss.backward()
    assert_same_gradients(gradients(model), {name: 2 * gradient for name, gradient in once.items()})


MULTIPLICATIONS = torch.ops.aten.mm.default, torch.ops.mkldnn._linear_pointwise.default


@pytest.mark.parametrize("trained", [False, True])
def test_each_logit_is_computed_once_where_the_weights_are_told(tiny_model, tiny_batch, trained):
    batch, model = tiny_batch(), tiny_model(tied=False)
    model.lm_head.requires_grad_(trained)
    products = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            products.extend(["logits"] if function in MULTIPLICATIONS and result.shape[-1:] == (61,) else [])
            return result

    module, weights = TokenNll(model, chunk_bytes=SMALL), torch.ones(batch.ids.shape)
    chunks = -(-supervised(batch.labels).numel() // 10)
    for known in (True, False):
        products.clear()
        with Watch():
            result = module(supervised(batch.labels), weights if known else None, **batch.arguments)
            (result[0] if known else result.sum()).backward()
        assert len(products) == chunks * (1 if known or not trained else 2)


def test_a_supervised_first_token_is_refused():
    with pytest.raises(ValueError, match="no token stands before it"):
        supervised(torch.tensor([[UNSUPERVISED, 0], [0, 1]]))


@pytest.mark.parametrize(("device", "tokens"), [("cpu", 2**27 // (4 * 1000)), ("cuda", 2**29 // (4 * 1000))])
def test_a_gpu_computes_larger_chunks_of_logits(tiny_model, device, tokens):
    """Each chunk reads and writes the gradient of the whole head there."""
    module = TokenNll(tiny_model(vocabulary=1000))
    assert module._rows(SimpleNamespace(is_cuda=device == "cuda")) == tokens
