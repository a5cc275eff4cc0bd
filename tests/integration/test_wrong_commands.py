"""What a user can get wrong with `percasym`: each ends as one line on stderr, exit code 2, and nothing on the disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from percasym.cli.main import main

COMMANDS = (
    "plan", "report", "compare", "status", "rollouts", "diagnose-rewards", "audit", "export", "gallery", "dashboard", "replay", "show",
)  # fmt: skip

WORDS = {
    "": "percasym: the following arguments are required: COMMAND. `percasym --help` says what it takes.",
    "repot": "percasym: argument COMMAND: invalid choice: 'repot' (choose from 'gallery', ",
    "--wrong": "percasym: the following arguments are required: COMMAND.",
    "ünïcode-%s": "percasym: argument COMMAND: invalid choice: 'ünïcode-%s' (choose from ",
    "plan --gpu-gb many": "percasym plan: argument --gpu-gb: invalid float value: 'many'. `percasym plan --help` says ",
    "plan --gpu-gb nan": "--gpu-gb must be a number above 0, got nan.",
    "plan --gpu-gb inf": "--gpu-gb must be a number above 0, got inf.",
    "plan --gpu-gb 1e400": "--gpu-gb must be a number above 0, got inf.",
    "plan --gpu-gb 0": "--gpu-gb must be a number above 0, got 0.",
    "plan scale=hug": "There is no scale=hug. The choices are ",
    "plan model.size=9B": "model.size must be one of tiny, tiny-graphs, 2B, ",
    "plan model.path=": "model.path is empty. Give it a Hugging Face directory or a hub id, or leave it out.",
    "plan model.path=./empty": "Nothing is recorded of model.path=./empty: it is no directory with a config.json, ",
    "plan task=sudoku,graph_coloring": "task=sudoku,graph_coloring is more than one value: ",
    "plan -m seed=0,1": "percasym: unrecognized arguments: -m.",
    "report": "percasym report: the following arguments are required: RUN.",
    "report nowhere": "No run directory at or below nowhere. Train one first, or name the folder of a study.",
    "report file.txt": "No run directory at or below file.txt.",
    "report empty": "No run directory at or below empty.",
    "report meta_half": "meta_half/s/seed0/meta.json is not JSON (",
    "report meta_empty": "meta_empty/s/seed0/meta.json is not as a run writes it (it lacks 'status'). Restore it, or clear the run away.",
    "report meta_list": "meta_list/s/seed0/meta.json is not as a run writes it (",
    "report config_broken": "config_broken/s/seed0/config.yaml is not YAML of plain data (",
    "report config_binary": "config_binary/s/seed0/config.yaml is not text (",
    "report config_empty": "config_empty/s/seed0/config.yaml is not as a run writes it (it is empty). Restore it, or clear the run away.",
    "report gain_wrong": "gain_wrong/s/seed0/summary.json is not as a run writes it (gain.via_both is 'x', not an estimate). ",
    "report summary_wrong": "summary_wrong/s/seed0/summary.json is not as a run writes it (",
    "report metrics_broken": "Line 1 of metrics_broken/s/seed0/metrics.jsonl is not JSON (",
    "report metrics_text": "metrics_text/s/seed0/metrics.jsonl is not as a run writes it (could not convert ",
    "report good --out file.txt": "The report could not be written: ",
    "report good --markdown --wat": "percasym: unrecognized arguments: --wat.",
    "compare": "percasym compare: the following arguments are required: RUN.",
    "compare nowhere": "No run directory at or below nowhere. Train one first, or name the folder of a study.",
    "compare good file.txt": "No run directory at or below file.txt.",
    "compare good": "No finished run at or below good has test results (1 of 1 run not finished). ",
    "compare meta_half": "meta_half/s/seed0/meta.json is not JSON (",
    "compare summary_wrong": "summary_wrong/s/seed0/summary.json is not as a run writes it (",
    "compare good --wat": "percasym: unrecognized arguments: --wat.",
    "status": "percasym status: the following arguments are required: RUN.",
    "status nowhere": "No run directory at or below nowhere.",
    "status 100%_%s_ü": "No run directory at or below 100%_%s_ü.",
    "status meta_half": "meta_half/s/seed0/meta.json is not JSON (",
    "status study_wrong": "study_wrong/study.json is not as a sweep writes it (",
    "status study_half": "study_half/study.json is not JSON (",
    "audit --samples x": "percasym audit: argument --samples: invalid int value: 'x'.",
    "audit --samples 0": "--samples must be at least 1, got 0.",
    "audit paradigm=rl": "percasym audit measures demonstrations, and paradigm=rl has none.",
    "audit task=jsonl": "task.path is not set. Write task.path=VALUE: a file of JSON lines, a JSON array or Parquet",
    "audit task=jsonl task.path=nowhere.jsonl": "There is no file nowhere.jsonl. Give task.path a file of JSON lines, ",
    "audit task=jsonl task.path=empty": "empty is a folder without Parquet files. Give task.path a file of JSON lines, a JSON array or ",
    "audit task=jsonl task.path=none.jsonl": "none.jsonl has no rows.",
    "audit task=jsonl task.path=binary.jsonl": "binary.jsonl, line 1: ",
    "rollouts paradigm=sft": "percasym rollouts samples as paradigm=rl does, and this asks for paradigm=sft. Leave paradigm out.",
    "rollouts --prompts 0": "--prompts must be at least 1, got 0.",
    "rollouts --prompts 1.5": "percasym rollouts: argument --prompts: invalid int value: '1.5'.",
    "rollouts --out file.txt": "file.txt exists. Give --out another name, or remove it.",
    "rollouts --out empty": "empty exists. Give --out another name, or remove it.",
    "rollouts --out new/x.jsonl model.path=./empty": "./empty holds no config.json, so it is not a Hugging Face checkpoint.",
    "rollouts reward=nope": "There is no reward=nope. The choices are ",
    "diagnose-rewards": "percasym diagnose-rewards: the following arguments are required: RUN_OR_ROLLOUTS.",
    "diagnose-rewards nowhere": "nowhere is no file of rollouts, and no run that recorded some ",
    "diagnose-rewards good/s/seed0": "good/s/seed0 is no file of rollouts, and no run that recorded some ",
    "diagnose-rewards none.jsonl": "none.jsonl holds no rollouts.",
    "diagnose-rewards half.jsonl": "half.jsonl holds no rollouts.",
    "diagnose-rewards binary.jsonl": "Line 1 of binary.jsonl is not JSON (",
    "diagnose-rewards one.jsonl": "Line 1 of one.jsonl is no group of rollouts: key is missing.",
    "diagnose-rewards list.jsonl": "Line 1 of list.jsonl is no group of rollouts: the record must be a group of values, got [].",
    "diagnose-rewards deep.jsonl": "Line 1 of deep.jsonl is not JSON (",
    "export": "percasym export: the following arguments are required: --out.",
    "export --out new --num -1": "--num must be at least 1, got -1.",
    "export --out new --num 1e3": "percasym export: argument --num: invalid int value: '1e3'.",
    "export --out new --split val": "percasym export: argument --split: invalid choice: 'val' (choose from ",
    "export --out new --format csv": "percasym export: argument --format: invalid choice: 'csv' ",
    "export --out file.txt --num 1": "file.txt/images cannot be read or written (Not a directory). Name another place.",
    "export --out new task=jsonl task.path=one.jsonl": "one.jsonl, line 1: it has no column perception; ",
    "export --out new seed=-1": "seed must be at least 0 and below 2 ** 63, got -1.",
    "gallery chess": "percasym gallery: no task named 'chess'; the tasks are sudoku, graph_coloring. ",
    "gallery --samples 0": "percasym gallery: --samples must be at least 1, got 0.",
    "gallery --seed -1": "percasym gallery: --seed must be at least 0, got -1.",
    "gallery --out file.txt": "file.txt cannot be read or written (File exists). Name another place.",
    "gallery --split validation": "percasym gallery: argument --split: invalid choice: 'validation' ",
    "dashboard": "percasym dashboard: the following arguments are required: STUDY.",
    "dashboard empty": "No run directory at or below empty.",
    "dashboard meta_half": "meta_half/s/seed0/meta.json is not JSON (",
    "dashboard good --out file.txt/x": "file.txt cannot be read or written (File exists). Name another place.",
    "replay": "percasym replay: the following arguments are required: RUN.",
    "replay file.txt": "file.txt is a file, not a run directory.",
    "replay empty": "empty is no run directory: it holds no config.yaml.",
    "replay config_broken/s/seed0": "config_broken/s/seed0/config.yaml cannot be read as a configuration. ",
    "replay good/s/seed0": "plugins must be a list (each text), got None.",
    "show": "percasym show: the following arguments are required: task.",
    "show chess": "percasym show: argument task: invalid choice: 'chess' ",
    "show sudoku --verbosity 99": "task.verbosity must lie between 0 and 4, got 99.",
    "show sudoku --index -1": "--seed and --index must be at least 0, got -1.",
    "show sudoku --model nowhere/a/b": "No checkpoint directory at nowhere/a/b. ",
    "show sudoku --model ./empty": "./empty holds no config.json, so it is not a Hugging Face checkpoint. ",
    "show sudoku --model=": "model.path is empty.",
}
"""Words after `percasym`, and how the answer begins."""


@pytest.fixture
def percasym(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`percasym("plan", ...)`: exit code, stdout and stderr, in a folder of good and bad files."""
    monkeypatch.chdir(tmp_path)
    texts = {"file.txt": "mine\n", "none.jsonl": "", "half.jsonl": '{"key": {"ta', "one.jsonl": "{}\n", "list.jsonl": "[]\n"}
    for name, text in {**texts, "deep.jsonl": "[" * 100_000 + "\n"}.items():
        Path(name).write_text(text)
    Path("binary.jsonl").write_bytes(bytes(range(256)))
    Path("empty").mkdir()
    whole = {"config.yaml": "seed: 0\nstudy: s\n", "meta.json": '{"id": "x", "status": "done", "seconds": 1}'}
    wrong: dict[str, dict[str, str | bytes]] = {
        "good": {},
        "meta_half": {"meta.json": '{"status'},
        "meta_empty": {"meta.json": "{}"},
        "meta_list": {"meta.json": "[1]"},
        "config_broken": {"config.yaml": "a: [1,\n"},
        "config_binary": {"config.yaml": bytes(range(128, 256))},
        "config_empty": {"config.yaml": ""},
        "summary_wrong": {"summary.json": '{"before": 3}'},
        "gain_wrong": {"summary.json": '{"gain": {"via_both": "x"}}'},
        "metrics_broken": {"metrics.jsonl": '{"step": \n{}\n'},
        "metrics_text": {"metrics.jsonl": '{"step": 1, "lr": "high"}\n'},
    }
    for name, files in wrong.items():
        run = Path(name) / "s" / "seed0"
        run.mkdir(parents=True)
        for file, content in {**whole, **files}.items():
            (run / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, text in {"study_wrong": json.dumps({"cells": {"a": 3}}), "study_half": '{"cells": {"a'}.items():
        Path(name).mkdir()
        (Path(name) / "study.json").write_text(text)

    def run_command(*words: str) -> tuple[int, str, str]:
        code = main(words)
        return code, *capsys.readouterr()

    return run_command


def state() -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


@pytest.mark.parametrize("line", WORDS)
def test_a_wrong_command_is_one_sentence(percasym, line: str) -> None:
    if line.startswith("dashboard"):
        pytest.importorskip("wandb_workspaces")
    before = state()
    code, out, err = percasym(*line.split())
    assert code == 2, out
    assert err.startswith(WORDS[line]), err
    assert err.count("\n") == 1, "one line"
    assert "Traceback" not in err + out
    assert state() == before, "nothing is written"


def test_the_table_has_every_command() -> None:
    assert {line.split()[0] for line in WORDS if line.split()[0:1]} >= set(COMMANDS)


@pytest.mark.parametrize("words", [(), *((command,) for command in COMMANDS)])
def test_help_is_no_mistake(percasym, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        percasym(*words, "--help")
    assert stop.value.code == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"usage: {' '.join(('percasym', *words))}")
    assert shown.err == ""


def test_a_defect_of_a_command_still_shows_its_traceback(percasym, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("percasym.report.load.load_runs", lambda root: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        percasym("status", "good")
