"""A run of collected data resumes on the same rows only, wherever they lie; exports and audits repeat none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from percasym.cli import main as cli
from percasym.tasks.given.task import _table

RUN = Path("multirun/main/jsonl-qwen3vl-sft-none-smoke/seed0")
FEW = ["paradigm.steps=4", "paradigm.batch_size=2", "paradigm.save_every=2", "evaluation.num_samples=2"]
FEW += ["evaluation.num_curve_samples=1", "evaluation.max_new_tokens=4", "engine=torch", "scale=smoke", "task=jsonl"]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder with a file of 40 rows and their pictures."""
    folder = tmp_path / "a"
    folder.mkdir()
    lines = []
    for number in range(40):
        Image.new("RGB", (64, 64), (6 * number,) * 3).save(folder / f"{number}.png")
        split = "test" if number < 4 else "train"
        row = {"image": f"{number}.png", "query": "?", "perception": str(number), "reasoning": "so", "answer": number, "split": split}
        lines.append(json.dumps(row) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))
    return folder


def test_an_interrupted_run_resumes_on_the_same_rows_only(
    command: Callable, rows: Path, blank: Path, tmp_path: Path, interrupt_at: Callable
) -> None:
    def train(folder: Path):
        _table.cache_clear()  # As in a process of its own.
        return command(*FEW, f"model.path={blank}", f"task.path={folder / 'rows.jsonl'}")

    interrupt_at(4)
    assert train(rows).code == 130
    changed = rows / "rows.jsonl"
    whole = changed.read_text()
    changed.write_text(whole.replace('"query": "?"', '"query": "??"', 1))
    refused = train(rows)
    assert refused.code == 2
    assert f"{RUN} holds a run on other data (fingerprint " in refused.err and "Put its data back" in refused.err
    changed.write_text(whole)
    Image.new("RGB", (64, 64), (1, 2, 3)).save(rows / "7.png")
    assert "holds a run on other data" in train(rows).err, "a picture, too"
    Image.new("RGB", (64, 64), (42,) * 3).save(rows / "7.png")
    moved = shutil.copytree(rows, tmp_path / "elsewhere")
    shutil.rmtree(rows)
    answer = train(moved)
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / RUN / "meta.json").read_text())["status"] == "done"
    assert "is finished" in train(moved).out, "at the new place, too"
    (moved / "rows.jsonl").write_text(whole.replace('"answer": 9', '"answer": 8', 1))
    assert "holds a run on other data" in train(moved).err


def test_a_finished_run_is_not_that_of_rows_changed_in_their_place(command: Callable, rows: Path, blank: Path) -> None:
    words = [*FEW, f"model.path={blank}", f"task.path={rows / 'rows.jsonl'}"]
    assert command(*words).code == 0
    skipped = command("-m", *words)
    assert skipped.code == 0 and "1 skipped" in skipped.out, skipped.err
    file = rows / "rows.jsonl"
    file.write_text(file.read_text().replace('"answer": 9', '"answer": 8', 1))
    _table.cache_clear()
    refused = command(*words)
    assert refused.code == 2
    assert "holds a run on other data" in refused.err
    of_a_study = command("-m", *words)
    assert of_a_study.code == 2 and "skipped" not in of_a_study.out
    assert "holds a run on other data (fingerprint " in of_a_study.err and "No cell was started" in of_a_study.err
    assert of_a_study.err.count("\n") == 1


def test_evaluations_before_and_after_a_change_of_the_rows_are_not_paired(
    rows: Path, blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    file, few = rows / "rows.jsonl", ["evaluation.num_samples=2", "evaluation.max_new_tokens=4", "scale=smoke"]
    evaluate = ["evaluate", str(blank), "task=jsonl", f"task.path={file}", *few]
    assert cli.main(evaluate) == 0
    (first,) = (tmp_path / "multirun" / "evaluations").iterdir()
    assert first.name.startswith("jsonl-qwen3vl-evaluate-")
    file.write_text(file.read_text().replace('"answer": 1', '"answer": 8', 1))
    _table.cache_clear()
    assert cli.main([*evaluate, "--out", "second"]) == 0
    capsys.readouterr()
    assert cli.main(["compare", str(first), "second"]) == 2
    refused = capsys.readouterr().err
    assert "were run on different data (fingerprints " in refused and refused.count("\n") == 1


def test_an_export_or_audit_never_repeats_a_row(rows: Path, blank: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = ["task=jsonl", f"task.path={rows / 'rows.jsonl'}", "scale=smoke"]
    assert cli.main(["export", *data, "--num", "37", "--out", str(tmp_path / "out")]) == 2
    assert "has 36 rows of split train_sft, and --num=37 would repeat some. Ask for at most 36." in capsys.readouterr().err
    assert cli.main(["export", *data, "--num", "36", "--out", str(tmp_path / "out")]) == 0
    exported = [json.loads(line)["answer"] for line in (tmp_path / "out" / "train_sft.jsonl").read_text().splitlines()]
    assert sorted(map(int, exported)) == list(range(4, 40))
    capsys.readouterr()
    audit = ["audit", *data, f"model.path={blank}"]
    assert cli.main([*audit, "--samples", "37"]) == 2
    assert "and --samples=37 would repeat some. Ask for at most 36." in capsys.readouterr().err
    assert cli.main(audit) == 0
    assert "first step on 36 samples" in capsys.readouterr().out
