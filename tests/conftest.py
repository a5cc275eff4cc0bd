"""Fixtures that several rooms share: a random model of each family, so small that a step takes milliseconds."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from threading import current_thread, main_thread

import pytest
from hypothesis import settings

# A worker of pytest-xdist ignores SIGINT, and nohup makes a whole run ignore SIGHUP; a process that a test starts would inherit that and
# never be interrupted.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN and current_thread() is main_thread():
        signal.signal(number, handler)

settings.register_profile("unhurried", deadline=None)  # A busy machine is no defect of what is tested.
settings.load_profile("unhurried")

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("percasym.cli.main", "percasym.launch.main")
"""The modules that print a refusal, each through its `one_line`."""
VOCABULARY = 61
IMAGE_TOKEN, VISION_START = 60, 59


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave modules and tests, which stay, out of later garbage collections; as percasym.launch.main does after its imports."""
    gc.collect()
    gc.freeze()


@lru_cache
def exception_names() -> re.Pattern[str]:
    """A pattern of the names of all exceptions that this package defines; `Interrupted` and `Stopped` are words, too."""
    texts = (file.read_text(encoding="utf-8") for file in (ROOT / "percasym").rglob("*.py"))
    names = {name for text in texts for name in re.findall(r"^class (\w+)\(\w*(?:Error|Exception|Interrupt)\):", text, flags=re.MULTILINE)}
    names = {name for name in names if re.search(r"[a-z][A-Z]", name)}
    assert {"UnfitFileError", "CheckpointError", "RunConflict"} <= names
    return re.compile(rf"\b({'|'.join(sorted(names))})\b")


@pytest.fixture(autouse=True)
def clean_refusals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No refusal of any test shows a class of ours: it would say the same thing twice, the second time in the words of the program."""
    yield from checked_refusals(monkeypatch)


def checked_refusals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what both commands refuse with; at the end, fail for a sentence that names an exception of this package."""
    said: list[str] = []

    def heard(one_line):
        def print_and_keep(text: str) -> str:
            said.append(text)
            return one_line(text)

        return print_and_keep

    for name in COMMANDS:
        if (module := sys.modules.get(name)) is not None:
            monkeypatch.setattr(module, "one_line", heard(module.one_line))  # type: ignore[attr-defined]
    yield
    shown = [text for text in said if exception_names().search(text)]
    assert shown == []


@pytest.fixture
def tiny_qwen():
    """Make a random `Qwen3VLForConditionalGeneration`: `tiny_qwen(seed=0, vocabulary=61, tied=True)`."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    def make(seed: int = 0, vocabulary: int = VOCABULARY, tied: bool = True) -> Qwen3VLForConditionalGeneration:
        torch.manual_seed(seed)
        text = {
            "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.1, "tie_word_embeddings": tied,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "mrope_interleaved": True},
        }  # fmt: skip
        vision = {
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
            "initializer_range": 0.1,
        }  # fmt: skip
        config = Qwen3VLConfig(
            text_config=text, vision_config=vision, image_token_id=IMAGE_TOKEN, vision_start_token_id=VISION_START, tie_word_embeddings=tied
        )
        return Qwen3VLForConditionalGeneration(config)

    return make


@pytest.fixture
def tiny_internvl():
    """Make a random `InternVLForConditionalGeneration` with the vision tower of the 38B: as `tiny_qwen`."""
    import torch
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    def make(seed: int = 0, vocabulary: int = VOCABULARY, tied: bool = True) -> InternVLForConditionalGeneration:
        torch.manual_seed(seed)
        text = {
            "model_type": "qwen3", "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.1,
            "tie_word_embeddings": tied, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        }  # fmt: skip
        vision = {
            "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "patch_size": 8, "image_size": 64,
            "attention_bias": False, "norm_type": "rms_norm", "use_qk_norm": True, "initializer_range": 0.1, "layer_scale_init_value": 1.0,
        }  # fmt: skip
        config = InternVLConfig(
            text_config=text, vision_config=vision, image_token_id=IMAGE_TOKEN, image_seq_length=16, tie_word_embeddings=tied
        )
        return InternVLForConditionalGeneration(config)

    return make


@pytest.fixture
def family_name() -> str:
    """The family of `tiny_model` and `tiny_batch`; a module overrides it with parameters to run over both."""
    return "qwen3vl"


@pytest.fixture
def tiny_model(family_name, tiny_qwen, tiny_internvl):
    """`tiny_qwen` or `tiny_internvl`."""
    return {"qwen3vl": tiny_qwen, "internvl35": tiny_internvl}[family_name]


@pytest.fixture(scope="session")
def blank_internvl35(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny InternVL3.5 with random weights and a tokenizer of both tasks' words."""
    import torch

    from percasym.models.architecture import write_blank
    from percasym.tasks.graph_coloring.task import GraphColoring
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey

    samples = [
        task.sample(SampleKey(task=task.name, split="base", seed=0, index=i)) for task in (Sudoku(), GraphColoring()) for i in range(10)
    ]
    texts = [text for s in samples for text in (s.prompt.question, s.demonstration.perception, s.demonstration.reasoning)]
    directory = tmp_path_factory.mktemp("internvl35")
    torch.manual_seed(0)
    write_blank(directory, texts, "internvl35")
    return directory


@pytest.fixture
def tiny_batch(family_name):
    """Make a random batch of that model: `tiny_batch(rows=4, seed=0)`; perception 3 to 6 tokens, reasoning 10 to 20."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from percasym.models.base import Batch
    from percasym.types import UNSUPERVISED, Span

    def make(rows: int = 4, seed: int = 0) -> Batch:
        draw = torch.Generator().manual_seed(seed)

        def number(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (), generator=draw))

        ids, labels = [], []
        for _ in range(rows):
            seen, thought = number(3, 6), number(10, 20)
            response = torch.randint(0, VISION_START, (seen + thought,), generator=draw)
            prompt = torch.tensor([1, VISION_START, *[IMAGE_TOKEN] * 16, 2])  # A 64 x 64 image: 8 x 8 patches, merged 2 x 2.
            ids.append(torch.cat([prompt, response]))
            labels.append(torch.tensor([UNSUPERVISED] * len(prompt) + [Span.perception] * seen + [Span.reasoning] * thought))
        padded = pad_sequence(ids, batch_first=True)
        if family_name == "qwen3vl":
            inputs = {
                "pixel_values": torch.randn(rows * 64, 3 * 2 * 8 * 8, generator=draw),
                "image_grid_thw": torch.tensor([[1, 8, 8]]).expand(rows, -1),
            }
            aligned = {"position_ids": torch.arange(padded.shape[1]).expand(3, rows, -1).clone()}
        else:
            inputs, aligned = {"pixel_values": torch.randn(rows, 3, 64, 64, generator=draw)}, {}
        return Batch(
            ids=padded,
            mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            labels=pad_sequence(labels, batch_first=True, padding_value=UNSUPERVISED),
            inputs=inputs,
            aligned=aligned,
        )

    return make


@pytest.fixture
def micro_batches():
    """Split a batch of `tiny_batch` into micro-batches of `rows` rows, padding kept: `micro_batches(batch, rows=1)`."""
    from percasym.models.base import Batch

    def split(batch: Batch, rows: int) -> list[Batch]:
        return [
            Batch(
                ids=batch.ids[at : at + rows],
                mask=batch.mask[at : at + rows],
                labels=batch.labels[at : at + rows],
                inputs={name: _rows(value, at, rows, len(batch.ids)) for name, value in batch.inputs.items()},
                aligned={name: value[..., at : at + rows, :] for name, value in batch.aligned.items()},
            )
            for at in range(0, len(batch.ids), rows)
        ]

    return split


def _rows(value, at: int, rows: int, num_rows: int):
    """`rows` rows of an image input that holds the same number of lines for each of `num_rows`."""
    each = len(value) // num_rows
    return value[each * at : each * (at + rows)]


@pytest.fixture
def make_engine(monkeypatch):
    """Wrap a model: `make_engine("deepspeed", model, lr=1e-3)`; `deepspeed2-offload` is ZeRO stage 2 with the optimizer on the CPU.

    `deepspeed3-rounded` has weights in bfloat16.
    """
    import torch

    from percasym.config.paradigm import Sft
    from percasym.config.settings import DeepSpeedSettings, TorchSettings
    from percasym.engine.deepspeed import deepspeed_engine
    from percasym.engine.ranks import SINGLE_RANK, Ranks
    from percasym.engine.torch import torch_engine

    def make(name: str, model: torch.nn.Module, ranks: Ranks = SINGLE_RANK, vision: Sequence[str] = (), **options: float):
        paradigm = Sft(**{"steps": 20, "batch_size": 8, "micro_batch_size": 8, "lr": 1e-3} | options)
        cpu = torch.device("cpu")
        if name == "torch":
            return torch_engine(model, settings=TorchSettings(), paradigm=paradigm, device=cpu, ranks=ranks, vision=vision)
        stage, *words = name.removeprefix("deepspeed").split("-")
        lower = {"weights": "bfloat16", "precision": "bfloat16"} if "rounded" in words else {}
        if stage == "3":
            monkeypatch.setenv("LOCAL_RANK", os.environ.get("LOCAL_RANK", "0"))  # ZeRO-3 needs it to stay; other tests need it to go.
        settings = DeepSpeedSettings(zero_stage=int(stage or 0), offload="offload" in words, **lower)
        return deepspeed_engine(model, settings=settings, paradigm=paradigm, device=cpu, ranks=ranks, vision=vision)

    return make
