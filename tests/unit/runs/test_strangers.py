"""Run directories that somebody else wrote: opening one deletes and follows nothing outside it, hangs on nothing, ends in a sentence."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from percasym.runs.checkpoint import clear_partial
from percasym.runs.identity import RunConflict, delete_run, find, mark_ended
from percasym.runs.records import replacing, write_whole
from percasym.runs.rundir import LogPosition, RunDirectory, truncate_metrics
from percasym.runs.study import Planned, add_to_study

CONFIG = {"seed": 0, "paradigm": {"steps": 2}}
SECRET = "sk-0123456789abcdef"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was interrupted."""
    path = tmp_path / "study" / "run"
    directory = RunDirectory.open(path, CONFIG)
    directory.log(1, {"loss": 0.5})
    directory.interrupted()
    return path


def rewrite(run: Path, **changes: object) -> None:
    meta = json.loads((run / "meta.json").read_text())
    (run / "meta.json").write_text(json.dumps(meta | changes))


@pytest.mark.parametrize("identity", ["../../../outside", "*", "x/../../../../outside", "", "..", "a" * 100, "x\n", "[a-z]"])
def test_overwriting_follows_no_id_out_of_the_run(run: Path, tmp_path: Path, identity: str) -> None:
    (run / "wandb" / "run-1-x").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    rewrite(run, id=identity)
    with pytest.raises(RunConflict, match="an id holds letters, digits, '_' and '-' only"):
        RunDirectory.open(run, CONFIG, overwrite=True)
    with pytest.raises(RunConflict, match="an id holds letters"):
        delete_run(run, identity)
    assert (run / "wandb" / "run-1-x").is_dir() and (tmp_path / "outside").is_dir() and (run / "config.yaml").is_file()


def test_overwriting_deletes_the_sessions_of_its_own_id_alone(run: Path) -> None:
    identity = json.loads((run / "meta.json").read_text())["id"]
    for name in (f"offline-run-1-{identity}", "offline-run-1-other"):
        (run / "wandb" / name).mkdir(parents=True)
    (run / "mine.txt").touch()
    RunDirectory.open(run, CONFIG, overwrite=True)
    assert [path.name for path in (run / "wandb").iterdir()] == ["offline-run-1-other"]
    assert (run / "mine.txt").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_in_place_of_the_trackers_folder_is_not_followed(run: Path, tmp_path: Path, overwrite: bool) -> None:
    identity = json.loads((run / "meta.json").read_text())["id"]
    outside = tmp_path / "outside"
    (outside / f"run-1-{identity}").mkdir(parents=True)
    (run / "wandb").symlink_to(outside)
    with pytest.raises(RunConflict, match="wandb is a symbolic link"):
        RunDirectory.open(run, CONFIG, overwrite=overwrite)
    (run / "wandb").unlink()
    (run / "wandb").mkdir()
    (run / "wandb" / f"run-2-{identity}").symlink_to(outside)
    with pytest.raises(RunConflict, match="is a symbolic link"):
        delete_run(run, identity)
    assert (outside / f"run-1-{identity}").is_dir() and (run / "config.yaml").is_file(), "nothing was deleted"


def test_resuming_deletes_no_partial_file_behind_a_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / ".mine.partial").touch()
    (run / "elsewhere").symlink_to(tmp_path / "outside")
    clear_partial(run)
    assert (tmp_path / "outside" / ".mine.partial").exists()


@pytest.mark.parametrize("name", ["config.yaml", "meta.json"])
def test_a_pipe_in_place_of_a_file_hangs_nothing(run: Path, name: str) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(RunConflict, match=f"{name} (cannot be read|is a pipe, not a regular file)"):
        find(run, CONFIG)
    assert not mark_ended(run, "failed") if name == "meta.json" else True


def test_a_configuration_that_would_fill_the_memory_is_refused(run: Path) -> None:
    levels = "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    (run / "config.yaml").write_text("a0: &a0 [x, x]\n" + levels)
    with pytest.raises(RunConflict, match="cannot be read as a configuration"):
        find(run, CONFIG)


@pytest.mark.parametrize("meta", ["[]", "3", '{"id": 1}', '{"id": "x", "status": [], "seconds": 0}', "[" * 5000, '"x"', "null"])
def test_a_meta_of_another_form_is_refused_and_not_marked(run: Path, meta: str) -> None:
    (run / "meta.json").write_text(meta)
    with pytest.raises(RunConflict, match=r"meta\.json (cannot be read|is not JSON)"):
        find(run, CONFIG)
    assert not mark_ended(run, "failed") or meta.startswith("{")


@pytest.mark.parametrize("note", ['{"step": 1, "identity": "../x"}', '{"step": "1"}', '{"stepp": 1}', "[]", "{}", '"x"'])
def test_a_checkpoint_note_of_another_form_is_refused(tmp_path: Path, note: str) -> None:
    (tmp_path / "DONE").write_text(note)
    with pytest.raises(ValueError, match="DONE"):
        LogPosition.read(tmp_path, 1)


@pytest.mark.parametrize("line", ["[]", "3", "{}", '{"step": "x"}', "x"])
def test_a_log_without_steps_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"Line 1 of .*metrics\.jsonl"):
        truncate_metrics(tmp_path / "metrics.jsonl", LogPosition(step=5, num_bytes=1000))


def test_other_files_among_the_samples_are_left_alone(run: Path) -> None:
    (run / "samples").mkdir()
    (run / "samples" / "notes_of_mine.jsonl").touch()
    RunDirectory.open(run, CONFIG).interrupted()
    assert (run / "samples" / "notes_of_mine.jsonl").exists()


def test_no_file_of_a_run_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(sys, "argv", ["train.py", f"model.path={SECRET}", "a.password=hunter22"])
    config = CONFIG | {"model": {"path": f"https://me:hunter22@host/{SECRET}"}}
    run = RunDirectory.open(tmp_path / "run", config)
    run.samples("test", 0, [{"text": SECRET}])
    run.failed(f"no model at {SECRET}")
    add_to_study(tmp_path, [Planned(name="run", words=(f"model.path={SECRET}", "a.password=hunter22"))])
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET not in written and "hunter22" not in written
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"] == {"path": "https://[redacted]@host/[HF_TOKEN]"}
    assert find(tmp_path / "run", config).status == "resumable", "the same command resumes it"


def test_half_a_character_in_a_meta_is_kept(run: Path) -> None:
    (run / "meta.json").write_text('{"id": "x", "status": "running", "reason": "\\ud800"}')
    assert mark_ended(run, "failed")
    assert json.loads((run / "meta.json").read_text()) == {"id": "x", "status": "failed", "reason": "\ud800"}


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """A folder of somebody else holds links by the names of what a report writes there, and of what it writes first beside it."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.write_text("precious")
    theirs.mkdir()
    for name in ("report.html", ".report.html.partial"):
        (theirs / name).symlink_to(mine)
    write_whole(theirs / "report.html", "page")
    assert (theirs / "report.html").read_text() == "page" and not (theirs / "report.html").is_symlink()
    with replacing(theirs / "report.html") as partial:
        partial.write_text("again")
    assert (theirs / "report.html").read_text() == "again"
    assert mine.read_text() == "precious"
    assert [path.name for path in theirs.iterdir()] == ["report.html"]


def test_a_report_is_not_written_behind_a_link(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from percasym.cli import main as cli

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "study" / "seed0").mkdir(parents=True)
    (tmp_path / "study" / "seed0" / "config.yaml").write_text("seed: 0\nstudy: s\n")
    (tmp_path / "study" / "seed0" / "meta.json").write_text('{"id": "x", "status": "done", "seconds": 1}')
    (tmp_path / "study" / "report").symlink_to(tmp_path / "elsewhere")
    assert cli.main(["report", str(tmp_path / "study")]) == 2
    said = f"{tmp_path}/study/report is a symbolic link, so the report would be written elsewhere. Name the folder with --out.\n"
    assert capsys.readouterr().err == said
    assert list((tmp_path / "elsewhere").iterdir()) == []
