"""Loading, saving and resuming on two ranks; `test_loading.py` starts this file under torchrun, once in each of two processes."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from torch.testing import assert_close

from percasym.config.paradigm import Sft
from percasym.config.schema import ConfigError
from percasym.config.settings import DeepSpeedSettings
from percasym.engine.deepspeed import _config, _partition, _start, deepspeed_engine, sharded_reference
from percasym.engine.loading import loaded
from percasym.engine.ranks import Ranks
from percasym.engine.reference import whole_reference
from percasym.models import stored
from percasym.models.adapt import Lora
from percasym.models.qwen3vl import Qwen3VL
from percasym.objectives.coefficients import coefficients, span_counts
from percasym.objectives.token_nll import TokenNll
from percasym.plan import memory
from percasym.types import Span

CPU = torch.device("cpu")
PARADIGM = Sft(steps=20, batch_size=8, micro_batch_size=8, lr=1e-3)


@pytest.fixture(scope="session")
def ranks() -> Ranks:
    return Ranks.join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), CPU)


@pytest.fixture
def place(ranks, tmp_path) -> Path:
    """A folder that both ranks see."""
    return Path(ranks.broadcast(lambda: str(tmp_path)))


@pytest.fixture
def family(ranks, place, tiny_qwen) -> Qwen3VL:
    """A family whose checkpoint rank 0 has written."""
    if ranks.rank == 0:
        tiny_qwen(seed=3).save_pretrained(place / "source")
    ranks.barrier()
    return Qwen3VL(path=str(place / "source"))


def stepped(engine, batch) -> None:
    """One update with both span gradients measured and combined."""
    counts = tuple(span_counts([batch.labels]).tolist())
    for span in Span:
        engine.backward(engine.loss(batch, coefficients(batch.labels, {span: 1.0}, counts))[0])
        engine.keep_gradient(span)
    engine.gramian()
    engine.combine(dict.fromkeys(Span, 0.5))
    engine.step(1e-3)


def weights(engine) -> torch.Tensor:
    with engine.gathered_weights() as model:
        return torch.cat([parameter.detach().float().flatten() for parameter in model.parameters()]).clone()


def test_only_the_first_rank_reads_a_file(ranks, family, monkeypatch) -> None:
    reads = []
    load = Qwen3VL.load
    monkeypatch.setattr(Qwen3VL, "load", lambda self: reads.append(1) or load(self))
    model = loaded(family, ranks)
    assert ranks.gather(len(reads)) == [1, 0]
    places = {parameter.device.type for parameter in model.parameters()}
    assert ranks.gather(places) == [{"cpu"}, {"meta"}]
    engine = deepspeed_engine(model, settings=DeepSpeedSettings(zero_stage=3), paradigm=PARADIGM, device=CPU, ranks=ranks)
    expected = torch.cat([parameter.detach().flatten() for parameter in load(family).parameters()])
    assert_close(weights(engine), expected, rtol=0, atol=0)
    tensors = [value for module in engine.model.modules() for value in vars(module).values() if isinstance(value, torch.Tensor)]
    tensors += engine.model.buffers()
    assert not any(tensor.is_meta for tensor in tensors), "nothing of the skeleton is left"


@pytest.mark.parametrize("name", ["torch", pytest.param("deepspeed2", marks=pytest.mark.slow)])
def test_a_rank_that_holds_all_weights_gets_those_of_the_first_and_trains_them(name, ranks, family, make_engine, tiny_batch) -> None:
    expected = torch.cat([parameter.detach().flatten() for parameter in family.load().parameters()])
    engine = make_engine(name, loaded(family, ranks), ranks)
    assert_close(weights(engine), expected, rtol=0, atol=0)
    stepped(engine, tiny_batch(rows=4, seed=ranks.rank))
    assert_close(*ranks.gather(weights(engine)), rtol=0, atol=0)
    assert (weights(engine) != expected).float().mean() > 0.5


def test_a_file_that_cannot_be_read_is_refused_on_all_ranks(ranks, family, place) -> None:
    if ranks.rank == 0:
        (place / "source" / "model.safetensors").write_bytes(b"no weights")
    ranks.barrier()
    with pytest.raises(ConfigError, match=r"could not be loaded|cannot hold"):
        loaded(family, ranks)


def test_adapters_are_drawn_once_and_resume(ranks, family, place, make_engine, tiny_batch) -> None:
    torch.manual_seed(ranks.rank)  # Ranks that drew their own would differ.
    family = Qwen3VL(path=family.path, lora=Lora(rank=2), gradient_checkpointing=True)
    engine = make_engine("deepspeed3", loaded(family, ranks), ranks)
    assert_close(*ranks.gather(weights(engine)), rtol=0, atol=0)
    for seed in (1, 2):
        stepped(engine, tiny_batch(rows=4, seed=10 * seed + ranks.rank))
        if seed == 1:
            (place / "checkpoint").mkdir(exist_ok=True)
            engine.save(place / "checkpoint")
    torch.manual_seed(9)
    resumed = make_engine("deepspeed3", loaded(family, ranks), ranks)
    resumed.load(place / "checkpoint")
    stepped(resumed, tiny_batch(rows=4, seed=20 + ranks.rank))
    assert_close(weights(resumed), weights(engine), rtol=0, atol=0)


@pytest.mark.parametrize("offload", [pytest.param(False, marks=pytest.mark.slow), True])
def test_rounded_weights_keep_exact_masters_through_a_checkpoint(offload, ranks, family, place, tiny_batch) -> None:
    from transformers import AutoModelForImageTextToText

    settings = DeepSpeedSettings(zero_stage=3, weights="bfloat16", precision="bfloat16", offload=offload)

    def make():
        return deepspeed_engine(loaded(family, ranks), settings=settings, paradigm=PARADIGM, device=CPU, ranks=ranks)

    engine = make()
    stepped(engine, tiny_batch(rows=4, seed=ranks.rank))
    assert {parameter.dtype for parameter in engine.model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in engine.model.buffers() if buffer.is_floating_point()} == {torch.float32}
    (place / "checkpoint").mkdir(exist_ok=True)
    engine.save(place / "checkpoint")
    written = AutoModelForImageTextToText.from_pretrained(place / "checkpoint" / "model", dtype=torch.float32)
    masters = torch.cat([parameter.detach().flatten() for parameter in written.parameters()])
    assert not torch.equal(masters, masters.bfloat16().float()), "the checkpoint holds the masters"
    assert_close(masters.bfloat16().float(), weights(engine), rtol=0, atol=0)
    resumed = make()
    resumed.load(place / "checkpoint")
    for each in (engine, resumed):
        stepped(each, tiny_batch(rows=4, seed=7 + ranks.rank))
    for one, other in zip(engine._updater._masters, resumed._updater._masters, strict=True):
        assert_close(one, other, rtol=0, atol=0)


def test_a_sharded_reference_gives_the_losses_of_a_whole_one(ranks, family, tiny_batch) -> None:
    batch, options = tiny_batch(rows=4, seed=ranks.rank), {"device": CPU, "ranks": ranks, "temperature": 0.7}
    whole = whole_reference(family.load(), dtype=torch.float32, **options)
    sharded = sharded_reference(loaded(family, ranks), settings=DeepSpeedSettings(zero_stage=3), **options)
    assert_close(sharded(batch), whole(batch), rtol=0, atol=0)
    held = sum(parameter.ds_tensor.numel() for parameter in sharded.args[0].module.parameters())
    assert held < 0.51 * sum(parameter.numel() for parameter in family.load().parameters())


FROZEN = ("frozen tower", "frozen tower and projector")


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in FROZEN), "adapters"])
def test_zero3_with_checkpointing_trains_as_one_rank_does(kind, ranks, family, make_engine, tiny_batch) -> None:
    chosen = {
        "frozen tower": {"freeze": ("vision",)},
        "frozen tower and projector": {"freeze": ("vision", "projector")},
        "adapters": {"freeze": ("vision",), "lora": Lora(rank=2)},
    }[kind]
    family = Qwen3VL(path=family.path, gradient_checkpointing=True, **chosen)
    torch.manual_seed(1)
    model = loaded(family, ranks)
    torch.manual_seed(1)
    engine, alone = make_engine("deepspeed3", model, ranks), make_engine("torch", family.load())
    batches = [tiny_batch(rows=4, seed=seed) for seed in range(ranks.num_ranks)]
    counts = tuple(sum(span_counts([batch.labels]) for batch in batches).tolist())
    for one, own in ((engine, [batches[ranks.rank]]), (alone, batches)):
        for span in Span:
            for batch in own:
                one.backward(one.loss(batch, coefficients(batch.labels, {span: 1.0}, counts))[0])
            one.keep_gradient(span)
    assert engine.gramian().cross == pytest.approx(alone.gramian().cross, rel=1e-4)
    for one in (engine, alone):
        one.combine({Span.perception: 0.3, Span.reasoning: 0.7})
    assert engine.step(1e-3).grad_norm == pytest.approx(alone.step(1e-3).grad_norm, rel=1e-4)
    assert_close(weights(engine), weights(alone), rtol=0, atol=1e-4)


@pytest.fixture
def large(ranks, place):
    """`large(dtype)`: a checkpoint of some 300 MB in float32 (half of it in bfloat16), and the bytes of its model in float32."""

    def make(dtype: torch.dtype) -> tuple[Path, int]:
        from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

        text = {
            "vocab_size": 16_384, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 16,
            "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [12, 10, 10], "mrope_interleaved": True},
        }  # fmt: skip
        vision = {
            "depth": 2,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_heads": 4,
            "out_hidden_size": 1024,
            "deepstack_visual_indexes": [0],
        }
        source = place / "large"
        if ranks.rank == 0 and (pid := os.fork()) == 0:  # In a process of its own, whose memory does not count.
            torch.manual_seed(0)
            config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
            Qwen3VLForConditionalGeneration(config).to(dtype).save_pretrained(source, max_shard_size="100MB")
            os._exit(0)
        elif ranks.rank == 0:
            os.waitpid(pid, 0)
        ranks.barrier()
        size = 4 / dtype.itemsize * sum(file.stat().st_size for file in source.glob("*.safetensors"))
        planned = memory.FLOAT32 * Qwen3VL(path=str(source)).anatomy().numel  # The plan's line for loading (`memory.host`).
        assert size > 300e6 and size == pytest.approx(planned, rel=0.01)
        return source, planned

    return make


@pytest.fixture
def peak_of(ranks):
    """`peak_of(work)`: the most memory of both ranks at one moment of `work`, above what they had before.

    Mapped pages of weight files do not count: the system drops them when it needs the memory.
    """

    def resident() -> int:
        fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(fields["RssAnon"].split()[0])

    def measure(work: Callable[[], object]) -> int:
        gc.collect()
        ranks.barrier()
        stop, samples, before = Event(), [], resident()

        def sample() -> None:
            while not stop.wait(0.01):
                samples.append((time.time(), ranks.rank, resident() - before))

        watcher = Thread(target=sample)
        watcher.start()
        work()
        ranks.barrier()
        stop.set()
        watcher.join()
        latest, peak = [0] * ranks.num_ranks, 0  # A busy machine samples one rank more often than the other.
        for _, rank, held in sorted(sample for share in ranks.gather(samples) for sample in share):
            latest[rank] = held
            peak = max(peak, sum(latest))
        return peak

    return measure


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_two_ranks_load_with_less_than_one_and_a_half_models(dtype, ranks, large, peak_of) -> None:
    """Both ranks' memory while one model is read and partitioned; a model is one in float32."""
    source, size = large(dtype)
    os.environ.setdefault("LOCAL_RANK", "0")
    kept = []

    def load() -> None:
        kept.append(loaded(Qwen3VL(path=str(source)), ranks))
        _partition(_start(CPU), TokenNll(kept[0]), _config(DeepSpeedSettings(zero_stage=3), pin_memory=False), CPU, ranks)

    peak = peak_of(load)
    print(f"model {size / 1e6:.0f} MB, peak of both ranks {peak / 1e6:.0f} MB")
    assert 0.8 * size < peak < 1.5 * size


@pytest.mark.slow
@pytest.mark.parametrize("weights_in", ["float32", "bfloat16"])
def test_two_ranks_save_and_resume_with_less_than_one_and_a_half_models(weights_in, ranks, place, large, peak_of) -> None:
    """The same while a checkpoint and final/ are written and while a checkpoint is read, above the states that training keeps."""
    source, size = large(torch.bfloat16)
    lower = {"weights": "bfloat16", "precision": "bfloat16"} if weights_in == "bfloat16" else {}
    settings, family = DeepSpeedSettings(zero_stage=3, **lower), Qwen3VL(path=str(source))
    engine = deepspeed_engine(loaded(family, ranks), settings=settings, paradigm=PARADIGM, device=CPU, ranks=ranks)
    for master in engine._updater._masters:
        master.grad = torch.zeros_like(master)
    engine._updater._assign()
    engine._updater._optimizer.step()
    engine._updater._unassign()
    for master in engine._updater._masters:
        master.grad = None
    (place / "checkpoint").mkdir(exist_ok=True)

    def final() -> None:
        with engine.whole_weights(torch.bfloat16) as model:
            if ranks.rank == 0:
                stored.save_as(model, torch.bfloat16, place / "final")

    peaks = {
        "saving": peak_of(lambda: engine.save(place / "checkpoint")),
        "final": peak_of(final),
        "resuming": peak_of(lambda: engine.load(place / "checkpoint")),
    }
    print(f"model {size / 1e6:.0f} MB, peaks of both ranks {[f'{name} {peak / 1e6:.0f} MB' for name, peak in peaks.items()]}")
    assert max(peaks.values()) < 1.5 * size
    assert peaks["final"] < size, "half a model in bfloat16, and what completes one parameter"
