"""What a user can get wrong with train.py beyond one run's options: sweeps, folders of configurations, RL, collected data, numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

RL = "paradigm=rl"
JSONL = "task=jsonl"

WRONG = {
    "flag that does not exist": (["--wat"], "unrecognized arguments: --wat. `python train.py --hydra-help` says which flags there are."),
    "flag without its value": (["--cfg"], "argument --cfg/-c: expected one argument."),
    "flag with a wrong value": (["--cfg", "jobs"], "argument --cfg/-c: invalid choice: 'jobs' (choose from "),
    "no such folder": (["--config-dir=nowhere"], "Additional config directory"),
    "a file for a folder": (["--config-dir=file.txt"], "Additional config directory"),
    "no such root": (["--config-name=nope"], "train.py composes conf/config.yaml, so --config-path and --config-name have no use. "),
    "no such experiment": (["experiment=sft_frontierr"], "There is no experiment=sft_frontierr; did you mean experiment=sft_frontier? "),
    "two experiments": (["experiment=asymmetry,strategies"], "experiment=asymmetry,strategies is more than one value: "),
    "unfinished yaml": (["--config-dir=mine", "experiment=unfinished"], "while parsing a flow "),
    "binary yaml": (["--config-dir=mine", "experiment=binary"], "A file of the configuration is not text ("),
    "misspelt key in a yaml": (["--config-dir=mine", "experiment=misspelt"], "There is no option paradigm.stepz; did you mean "),
    "wrong cell in a yaml": (["--config-dir=mine", "experiment=cell"], "There is no balance=nope; did you mean balance=none? "),
    "number for cells": (["--config-dir=mine", "experiment=cells"], "hydra.sweeper.cells must be a list of lines, "),
    "yaml without a class": (["--config-dir=mine", "balance=mine"], "balance=mine names no class; "),
    "sweep over nothing": (["-m", "seed=range(0)"], "seed=range(0) has no values to sweep over."),
    "sweep over too much": (["-m", "seed=range(0,1000000000)"], "This sweep has 10,001 cells or more, and a study has at most 10,000. "),
    "product that is too much": (["-m", "seed=range(0,200)", "paradigm.lr=range(1,200)"], "This sweep has 39,800 cells or more, "),
    "sweep over an interval": (["-m", "paradigm.lr=interval(0,1)"], "paradigm.lr=interval(0,1) is no list of values to sweep over: "),
    "one wrong cell": (["-m", "balance=none,nope"], "There is no balance=nope; did you mean balance=none? "),
    "one wrong value": (
        ["-m", "balance=fixed", "balance.weight=0.1,1.1"],
        "balance.weight must lie in [0, 1], got 1.1. No cell was started;",
    ),
    "one cell twice": (["-m", "balance=fixed", "balance.weight=0.1,0.10"], "The cells 'balance=fixed balance.weight=0.1' and "),
    "no such launcher": (["-m", "hydra/launcher=nope"], "There is no hydra/launcher=nope. The choices are "),
    "reward without rl": (["reward=consensus"], "reward=consensus needs paradigm=rl, got paradigm=sft."),
    "sampling without rl": (["rollout=native"], "rollout=native needs paradigm=rl, got paradigm=sft."),
    "no such reward": ([RL, "reward=nope"], "There is no reward=nope. The choices are "),
    "group of one": ([RL, "paradigm.group_size=1"], "paradigm.group_size must be at least 2, got 1."),
    "no such loss": ([RL, "paradigm.loss=ppo"], "paradigm.loss must be grpo, dr_grpo, dapo or gspo, got 'ppo'"),
    "clip beyond one": ([RL, "paradigm.clip_low=1.5"], "paradigm.clip_low must lie in [0, 1], got 1.5."),
    "negative penalty": ([RL, "paradigm.kl=-0.1"], "paradigm.kl must be at least 0, got -0.1."),
    "weights of tokens in a loss of sequences": ([RL, "paradigm.loss=gspo", "paradigm.token_weight=0.5"], "paradigm.token_weight needs a "),
    "key of sft": ([RL, "paradigm.probe_every=3"], "There is no option paradigm.probe_every; "),
    "cold": ([RL, "rollout.temperature=0"], "rollout.temperature must be above 0, got 0.0."),
    "infinitely hot": ([RL, "rollout.temperature=inf"], "rollout.temperature must be a number, got inf."),
    "no mass": ([RL, "rollout.top_p=0"], "rollout.top_p must lie in (0, 1], got 0.0."),
    "negative choice": ([RL, "rollout.top_k=-1"], "rollout.top_k must be at least 0, got -1."),
    "no number": (["paradigm.lr=nan"], "paradigm.lr must be a number, got nan."),
    "infinite number": (["paradigm.weight_decay=inf"], "paradigm.weight_decay must be a number, got inf."),
    "number beyond floats": (["paradigm.lr=1e400"], "paradigm.lr must be a number, got inf."),
    "whole number beyond floats": ([f"paradigm.lr=1{'0' * 400}"], "paradigm.lr must be a number, got 1000"),
    "enormous steps": ([f"paradigm.steps=1{'0' * 30}"], f"paradigm.steps must be at most 1000000000, got 1{'0' * 30}."),
    "arithmetic": (["paradigm.steps=10**30"], "paradigm.steps must be a whole number, got '10**30'."),
    "enormous evaluation": (["evaluation.num_samples=1000000000000"], "evaluation.num_samples must be at most 1000000000, "),
    "betas out of range": (["paradigm.betas=[0.9,2]"], "paradigm.betas must lie in [0, 1), got [0.9, 2.0]."),
    "enormous seed": ([f"seed=1{'0' * 30}"], "seed must be at least 0 and below 2 ** 63, got 1000"),
    "enormous picture": (["task.look.image_px=100000000"], "look.image_px must lie between 16 and 4096, got 100000000."),
    "nodes beyond the alphabet": (["task=graph_coloring", "task.nodes=[4,400]"], "task.nodes must be [low, high] with "),
    "no machine at the meeting place": (["launch.nnodes=2", "launch.rendezvous=host"], "launch.nnodes=2 needs launch.rendezvous=HOST:PORT"),
    "no path to the data": ([JSONL], "task.path is not set. Write task.path=VALUE: a file of JSON lines, a JSON array or Parquet"),
    "expression that is none": ([JSONL, "task.path=x", "task.boundary='(['"], "task.boundary must be a regular expression, got '(['"),
    "other way with errors": ([JSONL, "task.path=x", "task.on_error=ignore"], "task.on_error must be raise or skip, got 'ignore'"),
    "expression without a group": (["task=hub", "task.path=x", "task.ground_truth=x"], "task.ground_truth must name a group percept or "),
    "no such tracker": (["tracker=nope"], "There is no tracker=nope; did you mean tracker=none? The choices are "),
    "other mode of the tracker": (["tracker=wandb", "tracker.mode=maybe"], "tracker.mode must be auto, online or offline, got 'maybe'"),
    "class without what an engine has": (
        ["engine._target_=percasym.config.settings.Launch"],
        "engine._target_=percasym.config.settings.Launch has no pr",
    ),
    "class that tracks nothing": (["tracker._target_=percasym.config.settings.Launch"], "tracker._target_=percasym.config.settings.Laun"),
    "folder without a name": (["hydra.run.dir="], "hydra.run.dir is empty. Name a folder, or leave it out."),
    "file for a run": (["hydra.run.dir=file.txt"], "file.txt cannot be read or written (File exists). Name another place."),
    "file above a run": (["hydra.run.dir=file.txt/x"], "file.txt/x cannot be read or written (Not a directory). Name another place."),
    "environment that is not set": (["task.size=${oc.env:NOT_SET_AT_ALL}"], "task.size: KeyError raised while resolving interpolation: "),
    "letters and signs": (["ünïcode=%s"], "Cannot read 'ünïcode=%s' on the command line: "),
    "key below a value": (["task.size.x=3"], "task.size must be a whole number, got {'x': 3}."),
    "no key": (["=3"], "Config group override must be a string or a list."),
}
"""Words after train.py, and how the answer begins; none of these imports torch."""

WITH_A_MODEL = {
    "no rows": ([JSONL, "task.path=none.jsonl"], "none.jsonl has no rows."),
    "folder for rows": ([JSONL, "task.path=mine"], "mine is a folder without Parquet files. Give task.path a file of"),
    "binary rows": ([JSONL, "task.path=binary.jsonl"], "binary.jsonl, line 1: "),
    "half a row": ([JSONL, "task.path=half.jsonl"], "half.jsonl, line 1: it is not JSON ("),
    "deep row": ([JSONL, "task.path=deep.jsonl"], "deep.jsonl, line 1: the element that begins here is nested too deeply."),
    "row without columns": ([JSONL, "task.path=one.jsonl"], "one.jsonl, line 1: it has no column perception; "),
    "reward that needs a painter": (
        [JSONL, RL, "reward=rerender", "task.path=one.jsonl"],
        "reward=rerender needs a task that can draw a percept; ",
    ),
    "model without a name": (["task=sudoku", "model.path="], "model.path is empty. Give it a Hugging Face directory or a hub id, "),
    "model of another family": (
        ["task=sudoku", "model.path=./other"],
        "./other is of type bert, and model=qwen3vl reads qwen3_vl or qwen3_vl_moe.",
    ),
    "model that is no JSON": (["task=sudoku", "model.path=./broken"], "broken/config.json is not JSON ("),
}
"""The same for what only files can tell."""


@pytest.fixture
def files(tmp_path: Path) -> None:
    """Files of many wrong kinds, in the folder of the command."""
    experiments = {
        "unfinished": "a: [1,\n",
        "list": "- 1\n",
        "misspelt": "paradigm: {stepz: 3}\n",
        "cell": "hydra: {mode: MULTIRUN, sweeper: {cells: [balance=nope]}}\n",
        "cells": "hydra: {mode: MULTIRUN, sweeper: {cells: 3}}\n",
    }
    mine = tmp_path / "mine"
    for folder in ("experiment", "balance"):
        (mine / folder).mkdir(parents=True)
    for name, text in experiments.items():
        (mine / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    (mine / "experiment" / "binary.yaml").write_bytes(bytes(range(128, 256)))
    (mine / "balance" / "mine.yaml").write_text("weight: 3\n")
    texts = {"file.txt": "mine\n", "none.jsonl": "", "half.jsonl": '{"query": "a', "one.jsonl": "{}\n", "deep.jsonl": "[" * 100_000 + "\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)))
    for name, text in {"other": '{"model_type": "bert"}', "broken": '{"model_type": '}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)


def state(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(command, folder: Path, words: list[str], begins: str) -> None:
    before = state(folder)
    answer = command(*words)
    assert answer.code == 2, answer.err
    assert answer.err.startswith(begins), answer.err
    assert answer.err.count("\n") == 1, "one line"
    assert "Traceback" not in answer.err + answer.out
    assert state(folder) == before, "nothing is written"


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_study_is_one_sentence(command, files, tmp_path: Path, what: str) -> None:
    refused(command, tmp_path, *WRONG[what])


@pytest.mark.parametrize("what", WITH_A_MODEL)
def test_wrong_data_or_another_model_is_one_sentence(command, files, tmp_path: Path, what: str) -> None:
    words, begins = WITH_A_MODEL[what]
    refused(command, tmp_path, ["scale=smoke", *words], begins)


def test_help_is_no_mistake(command, tmp_path: Path) -> None:
    for words in (["--help"], ["--hydra-help"], ["--version"], ["--cfg", "job"]):
        answer = command(*words)
        assert (answer.code, answer.err) == (0, "")
        assert answer.out
    assert list(tmp_path.iterdir()) == []
