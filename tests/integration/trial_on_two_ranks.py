"""The paper's scale in miniature on two ranks; `test_trial.py` starts this file under torchrun, once in each of two processes.

Qwen3-VL-2B as released, shrunk in depth and width alone: its configuration, vocabulary of 151,936, ids of special tokens, chat template,
image processor, tied embeddings and bfloat16 shards. ZeRO-3 with bfloat16 weights, checkpointing, ngdiff, 9x9 Sudokus of 3,000 tokens.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from percasym.app import run as app
from percasym.config.resolve import composed
from percasym.engine.engine import SpanEngine
from percasym.engine.ranks import Ranks
from percasym.models.architecture import QWEN_SPECIAL
from percasym.models.checkpoint import config_from_dict
from percasym.models.locate import chat_template, released
from percasym.plan.inputs import QWEN_PIECES

ROOT = Path(__file__).resolve().parents[2]
FIRST_SPECIAL = 151_643
"""Id of <|endoftext|> in the released tokenizers; the other special tokens follow."""
TRAINING = ["engine.zero_stage=3", "engine.weights=bfloat16", "engine.precision=bfloat16", "model.gradient_checkpointing=true"]
FEW = ["evaluation.num_samples=2", "evaluation.num_curve_samples=1", "evaluation.batch_size=2", "evaluation.max_new_tokens=4"]
STEPS = ["paradigm.batch_size=2", "paradigm.micro_batch_size=1", "paradigm.save_every=1", "paradigm.eval_every=0"]
REWARD = """
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True, slots=True, kw_only=True)
class EvenTokens:
    needs_outcome: ClassVar[bool] = False
    needs_policy: ClassVar[bool] = False

    def score(self, groups, context):
        return [[sum(token % 2 == 0 for token in rollout.completion.ids) / len(rollout.completion.ids) for rollout in group]
                for group in groups]
"""
"""A reward that a model with random weights earns too: the share of even token ids."""


SUPERVISED = ["balance=ngdiff", "paradigm.steps=2"]


def base_words(folder: Path) -> list[str]:
    """What all runs of the trial have on their command line."""
    return ["scale=paper", "task=sudoku", f"model.path={folder / 'source'}", *TRAINING, *FEW, *STEPS]


@pytest.fixture(scope="session")
def ranks() -> Ranks:
    return Ranks.join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), torch.device("cpu"))


@pytest.fixture(scope="module")
def place(ranks, tmp_path_factory) -> Path:
    """A folder that both ranks see, with the checkpoint and the reward: PERCASYM_TRIAL, or a temporary one."""
    folder = Path(ranks.broadcast(lambda: os.environ.get("PERCASYM_TRIAL") or str(tmp_path_factory.mktemp("trial"))))
    if ranks.rank == 0:
        write_shrunk(folder / "source")
        (folder / "even_tokens.py").write_text(REWARD)
    ranks.barrier()
    return folder


def write_shrunk(directory: Path) -> None:
    """Qwen3-VL-2B shrunk, in bfloat16 shards of 8 MB."""
    from transformers import AutoModelForImageTextToText
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    values = json.loads(json.dumps(released("qwen3vl", "2B").config))
    text, vision = values["text_config"], values["vision_config"]
    text |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    text |= {"head_dim": 32}
    text["rope_scaling"]["mrope_section"] = [6, 5, 5]
    vision |= {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2, "out_hidden_size": 64}
    vision["deepstack_visual_indexes"] = [0]
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config_from_dict(values), dtype=torch.bfloat16)
    model.save_pretrained(directory, max_shard_size="8MB")
    write_tokenizer(directory)
    size = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    grey = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    Qwen2VLImageProcessorPil(patch_size=16, temporal_patch_size=2, merge_size=2, size=size, **grey).save_pretrained(directory)


def write_tokenizer(directory: Path) -> None:
    """Qwen's pre-tokenizer with merges learned from the task's texts, filled up so that the special tokens have their released ids."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    task = composed(["scale=paper", "task=sudoku"], ROOT / "conf").task
    from percasym.types import SampleKey

    samples = [task.sample(SampleKey(task=task.name, split="base", seed=0, index=index)) for index in range(4)]
    texts = [text for one in samples for text in (one.prompt.question, one.demonstration.perception, one.demonstration.reasoning)]
    learner = Tokenizer(models.BPE())
    pieces = [pre_tokenizers.Split(Regex(QWEN_PIECES), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    learner.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=2_000, initial_alphabet=alphabet, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    vocabulary = learned["vocab"] | {f"<unused{token}>": token for token in range(len(learned["vocab"]), FIRST_SPECIAL)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(pair) for pair in learned["merges"]]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFC(), learner.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(QWEN_SPECIAL))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token=QWEN_SPECIAL[0],
        additional_special_tokens=[token for token in QWEN_SPECIAL if token not in ("<|im_end|>", QWEN_SPECIAL[0])],
        chat_template=chat_template("qwen3vl"),
        clean_up_tokenization_spaces=False,
    ).save_pretrained(directory)


@pytest.fixture
def settings(place, monkeypatch):
    """Settings of a run in a folder: `settings("sft", "balance=ngdiff")`."""
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr(Ranks, "leave", lambda self: None)  # The next run of this process has the same group.

    def make(name: str, *words: str):
        return replace(composed([*base_words(place), *words], ROOT / "conf"), path=place / name)

    return make


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_checkpoint_is_the_released_one_but_for_depth_and_width(settings) -> None:
    family = settings("none").family
    codec = family.codec()
    assert codec.tokenizer.convert_tokens_to_ids("<|image_pad|>") == released("qwen3vl", "2B").config["image_token_id"]
    assert family.anatomy().vocabulary == 151_936
    task = settings("none").task
    from percasym.types import SampleKey

    row = family.row(task.sample(SampleKey(task=task.name, split="train_sft", seed=0, index=0)))
    assert 2_500 < len(row.ids) < 4_500


def test_supervised_training_stops_and_resumes(settings, ranks, monkeypatch) -> None:
    chosen = settings("sft", *SUPERVISED)
    step, taken = SpanEngine.step, []

    def mortal(self, lr):
        taken.append(lr)
        if len(taken) == 2:
            raise RuntimeError("the power is cut")
        return step(self, lr)

    monkeypatch.setattr(SpanEngine, "step", mortal)
    with pytest.raises(RuntimeError, match="the power is cut"):
        app.run(chosen)
    ranks.barrier()
    if ranks.rank == 0:
        shutil.copytree(chosen.path, chosen.path.with_name("alone"))  # For one rank to go on with.
    monkeypatch.setattr(SpanEngine, "step", step)
    app.run(chosen)
    ranks.barrier()
    if ranks.rank == 0:
        meta, logged = json.loads((chosen.path / "meta.json").read_text()), lines(chosen.path)
        assert meta["status"] == "done" and [session["step"] for session in meta["resumed"]] == [1]
        trained = [line for line in logged if "loss/total" in line]
        assert [line["step"] for line in trained] == [1, 2]
        for line in trained:
            assert 0 < line["balance/weight"] < 1 and line["grad/perception"] > 0 and line["grad/reasoning"] > 0
        assert trained[0]["loss/total"] == pytest.approx(11.9, abs=0.3), "log 151,936 = 11.93: random weights"
        assert (chosen.path / "final" / "model.safetensors").exists() or list((chosen.path / "final").glob("model-*.safetensors"))


def test_reinforcement_learning_earns_a_reward_and_moves(settings, ranks) -> None:
    rl = ["paradigm=rl", "paradigm.steps=2", "paradigm.kl=0.05", "paradigm.group_size=2"]
    rl += ["rollout.max_new_tokens=6", "rollout.batch_size=4"]
    reward = ["plugins=[even_tokens]", "reward._target_=even_tokens.EvenTokens", "~reward.grading"]
    reward += ["balance=fixed", "balance.weight=0.5"]
    chosen = settings("rl", *rl, *reward)
    app.run(chosen)
    ranks.barrier()
    if ranks.rank == 0:
        logged = [line for line in lines(chosen.path) if "loss/policy" in line]
        assert len(logged) == 2
        means = [value for line in logged for key, value in line.items() if key.startswith("reward/") and key.endswith("EvenTokens/mean")]
        means = means or [value for line in logged for key, value in line.items() if key.endswith("/mean") and "reward" in key]
        assert max(means) > 0
        assert logged[0]["policy/kl"] == pytest.approx(0, abs=1e-6), "the reference is the model that RL starts from"
        assert max(line["grad/norm"] for line in logged) > 0
