"""TRL, the real one: the balanced SFTTrainer, percasym's rewards inside GRPOTrainer, and the correlations that are logged."""

from __future__ import annotations

import json

import pytest
import torch

trl = pytest.importorskip("trl", reason="pip install 'percasym[trl]'")

from datasets import Dataset  # noqa: E402
from transformers import AutoModelForImageTextToText  # noqa: E402
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling  # noqa: E402

from percasym.balance.registry import balancer  # noqa: E402
from percasym.config.sampling import Native  # noqa: E402
from percasym.config.schema import ConfigError  # noqa: E402
from percasym.integrations.collate import SpanCollator  # noqa: E402
from percasym.integrations.trl import (  # noqa: E402
    BalancedSFTTrainer,
    RewardCorrelations,
    grpo_row,
    outcome_reward,
    perception_reward,
)
from percasym.models.base import Batch  # noqa: E402
from percasym.models.locate import packaged  # noqa: E402
from percasym.models.processor import processor  # noqa: E402
from percasym.models.qwen3vl import Qwen3VL  # noqa: E402
from percasym.rewards.registry import packaged_rewards  # noqa: E402
from percasym.rollout.native import NativeRollouts  # noqa: E402
from percasym.tasks.sudoku.task import Sudoku  # noqa: E402
from percasym.training.policy_queries import PolicyQueries  # noqa: E402
from percasym.types import SampleKey  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
TASK = Sudoku(verbosity=0)
COMMON = {
    "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True,
    "gradient_checkpointing": False, "dataloader_pin_memory": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CI", "1")


def samples(num: int, split: str = "train_rl") -> list:
    return [TASK.sample(SampleKey(task=TASK.name, split=split, seed=0, index=index)) for index in range(num)]


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("name", ["none", "fixed", "ngdiff"])
def test_sft_has_the_curve_of_the_own_loop(name, accumulation, text_windows, own_loop, train_with_trl, logged, assert_same_curve) -> None:
    steps = text_windows(micro=accumulation)
    ours, _ = own_loop(steps, balancer(name))
    trainer = train_with_trl(steps, name, rows_each=8 // accumulation, accumulation=accumulation)
    assert_same_curve(logged(trainer), ours)


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("none", "fixed")), "ngdiff"])
def test_sft_with_pictures_has_the_curve_of_the_own_loop(name, own_loop, tmp_path, logged, assert_same_curve) -> None:
    """The stock collator of TRL for pictures, its prompts and completions, in the trainer and in the own loop."""
    path, steps, each = packaged("qwen3vl"), 12, 4
    rows = [trl_row(sample) for sample in samples(each * steps, "train_sft")]
    made = processor(path)
    collator = SpanCollator(DataCollatorForVisionLanguageModeling(made, completion_only_loss=True), made)
    given = [collator([dict(row) for row in rows[each * step : each * (step + 1)]]) for step in range(steps)]
    windows = [
        [
            Batch(
                ids=batch["input_ids"],
                mask=batch["attention_mask"],
                labels=batch["spans"],
                inputs={"pixel_values": batch["pixel_values"], "image_grid_thw": batch["image_grid_thw"]},
                aligned={"mm_token_type_ids": batch["mm_token_type_ids"]},
            )
        ]
        for batch in given
    ]
    ours, _ = own_loop(windows, balancer(name), model=AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32), lr=1e-3)
    config = trl.SFTConfig(
        output_dir=str(tmp_path), max_length=None, max_steps=steps, per_device_train_batch_size=each, learning_rate=1e-3,
        lr_scheduler_type="constant", adam_beta2=0.95, weight_decay=0.0, optim="adamw_torch_fused", train_sampling_strategy="sequential",
        **COMMON,
    )  # fmt: skip
    trainer = BalancedSFTTrainer(
        AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=made,
        data_collator=collator,
        balance=name,
    )
    trainer.train()
    assert_same_curve(logged(trainer), ours)
    assert logged(trainer)[-1]["loss/reasoning"] < logged(trainer)[0]["loss/reasoning"] / 2


def trl_row(sample) -> dict:
    """A demonstration as TRL's prompt and completion with a picture."""
    row, own = grpo_row(sample), sample.demonstration
    completion = [{"role": "assistant", "content": own.perception + own.reasoning}]
    return {"prompt": row["prompt"], "completion": completion, "images": [row["image"]]}


def test_options_of_trl_that_join_rows_are_refused(tiny_qwen, tmp_path) -> None:
    config = trl.SFTConfig(output_dir=str(tmp_path), max_length=None, max_steps=1, loss_type="dft", **COMMON)
    rows = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "spans": [-1, 0, 1]}])
    with pytest.raises(ConfigError, match="loss_type=dft is another loss of a token"):
        BalancedSFTTrainer(tiny_qwen(), args=config, train_dataset=rows, processing_class=Qwen3VL().codec().tokenizer, balance="none")


def test_grpo_trains_on_percasyms_rewards_and_logs_their_correlations(tmp_path) -> None:
    path, codec = packaged("qwen3vl"), Qwen3VL().codec()
    rewards = [outcome_reward(TASK, codec), perception_reward(TASK, codec, "consensus"), perception_reward(TASK, codec, "oracle")]
    reasoning = NativeRollouts(family=Qwen3VL(), sampling=Native(max_new_tokens=48, batch_size=8))
    config = trl.GRPOConfig(
        output_dir=str(tmp_path), num_generations=4, max_completion_length=48, reward_weights=[0.7, 0.3, 0.0], max_steps=2,
        per_device_train_batch_size=8, temperature=1.5, **COMMON,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32),
        reward_funcs=rewards,
        args=config,
        train_dataset=Dataset.from_list([grpo_row(sample) for sample in samples(8)]),
        processing_class=processor(path),
        callbacks=[RewardCorrelations(rewards, reasoning, weights=config.reward_weights)],
    )
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 2
    for line in lines:
        for name in ("outcome", "consensus", "oracle"):
            assert line[f"rewards/{name}/mean"] == pytest.approx(line[f"reward/{name}/mean"], abs=1e-6)
            assert 0 <= line[f"reward/{name}/zero_variance"] <= 1
        assert line["rewards/oracle/mean"] == pytest.approx(line["reward/perception/mean"], abs=1e-6)
        paid = 0.7 * line["rewards/outcome/mean"] + 0.3 * line["rewards/consensus/mean"]
        assert line["reward"] == pytest.approx(paid, abs=1e-5)


def completions(codec, sample, other) -> list[tuple[int, ...]]:
    """Right in both; wrong picture and answer; right picture and no answer; no perception."""
    right = sample.demonstration.perception + sample.demonstration.reasoning
    wrong = other.demonstration.perception + other.demonstration.reasoning
    texts = (right, wrong, sample.demonstration.perception + " So.", "So.")
    return [(*codec.encode(text), codec.end) for text in texts]


def test_rewards_and_correlations_are_those_of_graded_completions() -> None:
    codec, (one, two) = Qwen3VL().codec(), samples(2)
    outcome, oracle = outcome_reward(TASK, codec), perception_reward(TASK, codec, "oracle")
    seen: dict[str, float] = {}
    RewardCorrelations([outcome, lambda **_: [], oracle], weights=[0.5, 1.0, 0.5])
    arguments = {
        "completion_ids": [*completions(codec, one, two), *completions(codec, two, one)],
        "key": [grpo_row(sample)["key"] for sample in (one, two) for _ in range(4)],
        "log_metric": lambda name, value: seen.update({name: value}),
    }
    assert outcome(**arguments) == [1.0, 0.0, 0.0, 0.0] * 2
    assert not seen
    assert oracle(**arguments) == [1.0, 0.0, 1.0, 0.0] * 2
    # r of (1, 0, 0, 0) and (1, 0, 1, 0): covariance 1/4 - 1/8 = 1/8, variances 3/16 and 1/4, so (1/8) / sqrt(3/64) = 1 / sqrt(3).
    assert seen["corr/outcome/perception"] == pytest.approx(3**-0.5)
    assert seen["corr/oracle/perception"] == pytest.approx(1.0)
    assert seen["reward/total/mean"] == pytest.approx((0.5 * 2 + 0.5 * 4) / 8)
    assert seen["reward/outcome/zero_variance"] == 0.0
    assert "corr/outcome/reasoning/across" not in seen


def test_the_order_of_completions_does_not_matter() -> None:
    codec, (one, two) = Qwen3VL().codec(), samples(2)
    ids = [*completions(codec, one, two), *completions(codec, two, one)]
    keys = [grpo_row(sample)["key"] for sample in (one, two) for _ in range(4)]
    order = [5, 0, 7, 2, 1, 6, 3, 4]
    reward = perception_reward(TASK, codec, "consensus")
    straight = reward(completion_ids=ids, key=keys)
    assert reward(completion_ids=[ids[i] for i in order], key=[keys[i] for i in order]) == [straight[i] for i in order]


@pytest.mark.parametrize("name", list(packaged_rewards()))
def test_every_reward_scores_completions(name) -> None:
    family = Qwen3VL()
    codec, (one, two) = family.codec(), samples(2)
    policy = PolicyQueries(model=family.load().eval(), family=family, max_new_tokens=48, batch_size=8, temperature=1.0)
    reward = perception_reward(TASK, codec, name, policy=policy)
    scores = reward(completion_ids=completions(codec, one, two), key=[grpo_row(one)["key"]] * 4)
    assert len(scores) == 4
    assert scores[3] == 0.0  # No perception is stated.
    assert all(score is None or 0 <= score <= 1 for score in scores)
    assert any(score for score in scores[:3]) or name == "blindfold_self"  # The tiny model answers nothing from text at this setting.


def test_rewards_that_cannot_work_are_refused() -> None:
    codec = Qwen3VL().codec()
    with pytest.raises(ConfigError, match=r"has no column key, which names the sample of a prompt. Make its rows by grpo_row\(sample\)"):
        outcome_reward(TASK, codec)(completion_ids=[[1]])
    with pytest.raises(ConfigError, match=r"reward must be one of oracle, augmentation, .*, got 'sight'"):
        perception_reward(TASK, codec, "sight")
    for name in ("confidence", "augmentation"):
        with pytest.raises(ConfigError, match=f"reward {name} queries the model in training"):
            perception_reward(TASK, codec, name)
    with pytest.raises(ConfigError, match="RewardCorrelations needs a reward of percasym"):
        RewardCorrelations([lambda **_: []])
    with pytest.raises(ConfigError, match="weights must be as many as rewards, 1, got 2"):
        RewardCorrelations([outcome_reward(TASK, codec)], weights=[1.0, 1.0])


def test_a_row_of_grpo_holds_no_label() -> None:
    (sample,) = samples(1)
    row = grpo_row(sample)
    assert set(row) == {"prompt", "image", "key"}
    assert sample.truth not in row["key"]
    assert SampleKey(**json.loads(row["key"])) == sample.prompt.key
