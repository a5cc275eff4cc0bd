"""Whole runs of RL on a blank model: what they leave behind, that they resume exactly, and that two ranks learn what one learns."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CELL = Path("multirun/main/sudoku-qwen3vl-rl-fixed0.3-smoke/seed0")
WORDS = [
    "paradigm=rl", "scale=smoke", "engine=torch", "paradigm.steps=3", "paradigm.batch_size=2",
    "paradigm.group_size=3", "paradigm.micro_batch_size=2", "paradigm.eval_every=2", "paradigm.save_every=1", "evaluation.num_samples=2",
    "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=6",
]  # fmt: skip


FIXED = ["balance=fixed", "balance.weight=0.3"]


@pytest.fixture
def train(command, blank: Path):
    """`train("balance=ngdiff")`: three steps of two prompts with three rollouts each."""

    def run(*words: str):
        weighed = [] if any(word.startswith("balance=") for word in words) else FIXED
        return command(*WORDS, *weighed, f"model.path={blank}", *words)

    return run


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers(path: Path) -> list[dict]:
    """metrics.jsonl without what a clock wrote."""
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines(path)]


def weights(directory: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(directory / "model.safetensors")


def test_a_run_logs_what_the_page_defines_and_keeps_its_rollouts(train, tmp_path: Path) -> None:
    answer = train("evaluation.num_sampled=2", "evaluation.samples_per_prompt=3")
    assert answer.code == 0, answer.err
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    defined = {key for row in re.findall(r"^\| (`.*?) \|", page, flags=re.MULTILINE) for key in re.findall(r"`([^`]+)`", row)}
    logged = {key for line in lines(tmp_path / CELL / "metrics.jsonl") for key in line} - {"step", "not_finite"}
    rewards = re.compile(r"^(reward(?=/)|corr(?=/(?!outcome/)))/[a-z_]+/")
    named = {rewards.sub(r"\1/<name>/", key) for key in logged if not key.startswith("eval/")}
    assert named <= defined, named - defined
    assert {"loss/policy", "reward/total/mean", "reward/consensus/mean", "reward/augmentation/mean", "policy/drift"} <= logged
    kept = lines(tmp_path / CELL / "samples" / "rollouts_000001.jsonl")
    assert [len(group["rollouts"]) for group in kept] == [3, 3]
    assert all(group["reasoning"] is not None for group in kept), "diagnose_every=1 measures a_r of each prompt"
    summary = json.loads((tmp_path / CELL / "summary.json").read_text())
    assert summary["status"] == "done"
    assert "share" not in summary
    assert "end to end" in answer.out
    assert {"sampled_end_to_end", "sampled_perception", "sampled_reasoning"} <= set(summary["before"]) & set(summary["gain"])
    assert "sampled  a_p" in answer.out
    sampled = [lines(tmp_path / CELL / "samples" / f"sampled_{step:06d}.jsonl") for step in (0, 2, 3)]
    assert all([len(record["verdicts"]["perception"]) for record in records] == [3, 3] for records in sampled)
    assert [record["key"]["split"] for record in sampled[0]] == ["test", "test"]
    rounds = summary["rounds"]
    logged_lines = [line for line in lines(tmp_path / CELL / "metrics.jsonl") if "rollouts/taught" in line]
    assert rounds["groups"] == 2 * len(logged_lines) == 6
    assert rounds["taught"] == sum(line["rollouts/taught"] for line in logged_lines)
    for part in ("rollout", "reward", "update"):
        assert rounds[f"{part}_seconds"] == pytest.approx(sum(line[f"time/{part}_seconds"] for line in logged_lines))
    assert "Seconds of the rounds: sampling" in " ".join(answer.out.split())
    for line in logged_lines:
        assert line["trained/perception/weighted"] == pytest.approx(0.3 * line["trained/perception/raw"])
        assert line["trained/outcome/weighted"] == pytest.approx(0.7 * line["trained/outcome/raw"])


def test_sampler_and_trainer_agree_on_what_was_said(train, tmp_path: Path) -> None:
    assert train("rollout.temperature=0.7").code == 0
    first = next(line for line in lines(tmp_path / CELL / "metrics.jsonl") if "policy/drift" in line)
    assert first["policy/drift"] < 1e-5
    assert first["policy/mismatch"] < 1e-9
    assert first["policy/clipped"] == 0


def test_a_run_whose_groups_all_failed_says_that_none_taught(train, tmp_path: Path) -> None:
    answer = train("balance=none", "paradigm.steps=2", "paradigm.save_every=0", f"hydra.run.dir={CELL}")
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / CELL / "summary.json").read_text())["rounds"]["taught"] == 0  # A blank model solves nothing.
    assert "No group taught anything: in all 4 groups" in " ".join(answer.out.split())


def test_stages_show_pictures_then_texts_then_pictures(train, tmp_path: Path) -> None:
    answer = train("balance=staged", "paradigm.record_every=1", "paradigm.diagnose_every=0", "paradigm.save_every=0")
    assert answer.code == 0, answer.err
    (run,) = (path.parent for path in (tmp_path / "multirun").rglob("summary.json"))
    pictured = [[group["image"] is not None for group in lines(run / "samples" / f"rollouts_00000{step}.jsonl")] for step in (1, 2, 3)]
    assert pictured == [[True, True], [False, False], [True, True]]
    weights_logged = [line["balance/weight"] for line in lines(run / "metrics.jsonl") if "balance/weight" in line]
    assert weights_logged == [1.0, 0.0, 0.0]


def test_losses_of_demonstrations_are_weighed_by_what_the_picture_adds(command, blank: Path, tmp_path: Path) -> None:
    words = ["paradigm=sft", "scale=smoke", "balance=none", f"model.path={blank}", "paradigm.steps=2", "evaluation.num_samples=2"]
    words += ["evaluation.num_curve_samples=1", "evaluation.max_new_tokens=6"]
    for name, chosen in {"vig": ["tokens=vig"], "plain": []}.items():
        answer = command(*words, *chosen, f"hydra.run.dir={name}")
        assert answer.code == 0, answer.err
    first, plain = (lines(tmp_path / name / "metrics.jsonl") for name in ("vig", "plain"))
    losses = [[line["loss/total"] for line in run if "loss/total" in line] for run in (first, plain)]
    assert losses[0][0] == pytest.approx(losses[1][0])  # Losses are logged without factors, and the first step is the same.
    assert losses[0][1] != pytest.approx(losses[1][1], rel=1e-6)
    assert "share" not in json.loads((tmp_path / "vig" / "summary.json").read_text())
    for wrong, sentence in {
        ("balance=ngdiff", "tokens=vig"): "tokens weighs each token",
        ("balance=saw",): "balance=saw is a strategy of RL",
        ("tokens=vppo",): "tokens=vppo is for paradigm=rl. Leave it out.",
    }.items():
        refused = command(*words, *wrong, "hydra.run.dir=refused")
        assert (refused.code, sentence in refused.err, refused.err.count("\n")) == (2, True, 1), refused.err


def test_an_interrupted_run_ends_with_the_same_weights(train, tmp_path: Path, interrupt_at) -> None:
    assert train("study=whole").code == 0
    steps = interrupt_at(3)
    assert train().code == 130
    assert train().code == 0
    assert len(steps) == 4, "only the step that was lost is repeated"
    whole = tmp_path / str(CELL).replace("main", "whole")
    ours, theirs = weights(tmp_path / CELL / "final"), weights(whole / "final")
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)
    assert numbers(tmp_path / CELL / "metrics.jsonl") == numbers(whole / "metrics.jsonl")


@pytest.mark.parametrize(
    "words",
    [
        ["balance=ngdiff"],
        ["paradigm.route=true"],
        ["paradigm.loss=gspo"],
        ["paradigm.kl=0.1", "paradigm.epochs=2"],
        ["paradigm.mixing=normalize_then_sum", "reward.grading=graded", "paradigm.resample=1", "paradigm.resample_by=either"],
        ["paradigm.route=true", "balance=ngdiff"],
        ["balance=saw"],
        ["tokens=vppo"],
    ],
)
def test_every_way_to_learn_runs_to_the_end(train, tmp_path: Path, words: list[str]) -> None:
    answer = train(*words, "paradigm.steps=1", "study=ways", "paradigm.diagnose_every=0")
    assert answer.code == 0, answer.err
    (run,) = (path.parent for path in (tmp_path / "multirun" / "ways").rglob("summary.json"))
    assert all(line.get("loss/policy", 0.0) is not None for line in lines(run / "metrics.jsonl"))


def test_what_cannot_work_together_is_one_sentence(train) -> None:
    for words, sentence in {
        ("balance=ngdiff", "paradigm.kl=0.1"): "paradigm.kl adds a third gradient",
        ("balance=hidden",): "RL has two rewards over all tokens",
        ("paradigm.loss=gspo", "paradigm.route=true"): "paradigm.route=true needs a loss of single tokens",
        ("paradigm.group_size=1",): "paradigm.group_size must be at least 2, got 1.",
        ("reward=consensuss",): "did you mean reward=consensus?",
        ("rollout=vllm",): "vllm",
        ("tokens=vig",): "tokens=vig is for paradigm=sft. Leave it out.",
        ("tokens=vppo", "paradigm.loss=gspo"): "tokens needs a loss of single tokens",
        ("evaluation.num_sampled=3",): "evaluation.num_sampled=3 prompts are the first of evaluation.num_samples=2.",
        ("rollout.temperature=0",): "rollout.temperature must be above 0, got 0.0.",
    }.items():
        answer = train(*words)
        assert answer.code == 2, words
        assert sentence in answer.err
        assert answer.err.count("\n") == 1


def test_frozen_rollouts_say_which_reward_to_train_on(blank: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from percasym.cli.main import main

    out = tmp_path / "frozen" / "rollouts.jsonl"
    words = ["rollouts", "scale=smoke", f"model.path={blank}", "evaluation.max_new_tokens=6", "paradigm.group_size=3"]
    assert main([*words, "--prompts", "2", "--out", str(out)]) == 0
    assert "6 rollouts in" in capsys.readouterr().out
    kept = lines(out)
    assert {group["key"]["split"] for group in kept} == {"train_rl"}
    assert [len(group["rollouts"]) for group in kept] == [3, 3]
    assert all(set(group["rollouts"][0]["rewards"]) >= {"oracle", "blindfold_self", "augmentation"} for group in kept)
    assert main(["diagnose-rewards", str(out)]) == 0
    assert {"rollouts_rewards.png", "rollouts_rewards.md", "rollouts_rewards.csv"} <= {path.name for path in out.parent.iterdir()}
    assert main([*words, "--prompts", "1", "--split", "test", "--out", str(tmp_path / "unseen.jsonl")]) == 0
    assert [group["key"]["split"] for group in lines(tmp_path / "unseen.jsonl")] == ["test"]
    capsys.readouterr()
    for more, sentence in {
        ("--out", str(out)): f"{out} exists.",
        ("--prompts", "0", "--out", str(tmp_path / "other.jsonl")): "--prompts must be at least 1, got 0.",
        ("reward=consensuss",): "did you mean reward=consensus?",
    }.items():
        assert main([*words, *more]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.slow  # Collection by ranks and SFT on two ranks are in every suite.
def test_two_ranks_learn_what_one_learns(tmp_path: Path, blank: Path) -> None:
    def learn(study: str, *words: str) -> None:
        more = [f"model.path={blank}", "paradigm.mixing=normalize_then_sum", f"hydra.run.dir={study}", *words]
        done = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *WORDS, *FIXED, *more], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    learn("one")
    learn("two", "launch.nproc=2")
    alone, shared = weights(tmp_path / "one" / "final"), weights(tmp_path / "two" / "final")
    assert all(bool((alone[name] - shared[name]).abs().max() <= 1e-4 * alone[name].abs().max()) for name in alone)
    kept = [lines(tmp_path / study / "samples" / "rollouts_000001.jsonl") for study in ("one", "two")]
    assert [[sibling["ids"] for sibling in group["rollouts"]] for group in kept[0]] == [
        [sibling["ids"] for sibling in group["rollouts"]] for group in kept[1]
    ]

    # The run of one rank goes on with two, from its second step.
    run = tmp_path / "one"
    (run / "meta.json").write_text(json.dumps(json.loads((run / "meta.json").read_text()) | {"status": "interrupted"}))
    for path in (run / "final", run / "checkpoints" / "step_000003"):
        shutil.rmtree(path)
    (run / "summary.json").unlink()
    learn("one", "launch.nproc=2")
    resumed = weights(run / "final")
    assert [session["step"] for session in json.loads((run / "meta.json").read_text())["resumed"]] == [2]
    assert max(float((alone[name] - resumed[name]).abs().max()) for name in alone) < 1e-6
