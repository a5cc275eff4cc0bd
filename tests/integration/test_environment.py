"""A machine that is not as one would wish: one clear sentence, or the run as ever."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from percasym.runs.space import RESERVE

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "scale=smoke", "engine=torch", "paradigm.steps=4", "paradigm.batch_size=2", "paradigm.save_every=1", "evaluation.num_samples=2",
    "evaluation.max_new_tokens=4",
]  # fmt: skip


def status(run: Path) -> dict:
    return json.loads((run / "meta.json").read_text())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own in memory, 64 MB: `mount -o remount,...` changes it. Needs the rights of root."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", place], check=False, capture_output=True).returncode
    ):
        pytest.skip("mounting a disk needs the rights of root")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


@pytest.fixture
def words(blank: Path) -> list[str]:
    return [*TINY, f"model.path={blank}"]


def test_a_disk_that_fills_up_costs_no_checkpoint_and_more_room_goes_on(command, words, small_disk: Path, interrupt_at) -> None:
    run = small_disk / "run"
    interrupt_at(2)
    assert command(*words, f"hydra.run.dir={run}").code == 130
    size = sum(path.stat().st_size for path in (run / "checkpoints" / "step_000001").rglob("*") if path.is_file())
    filler = small_disk / "filler"
    with filler.open("wb") as file:  # Room is left for the smallest of files, and not for a checkpoint.
        file.write(bytes(shutil.disk_usage(small_disk).free - size // 2))
    refused = command(*words, f"hydra.run.dir={run}")
    assert refused.code == 2
    assert refused.err.strip().splitlines()[-1].startswith("What this run will still write (2 checkpoints of 0.0")
    assert "and the disk of disk/run has 0.0" in refused.err
    assert "Traceback" not in refused.err
    filler.unlink()
    assert command(*words, f"hydra.run.dir={run}").code == 0
    assert [session["step"] for session in status(run)["resumed"]] == [1]


def test_a_disk_that_is_full_in_the_middle_of_a_write_is_one_sentence(command, words, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # No file may grow beyond that: a write fails amid a checkpoint.
    try:
        refused = command(*words, "hydra.run.dir=run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.code == 2, refused.err
    assert refused.err.strip().splitlines()[-1] == "run cannot be written (the disk is full). The same command goes on once there is room."
    assert "Traceback" not in refused.err
    assert status(tmp_path / "run")["status"] == "failed"
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == [], "no half of a checkpoint is left"
    assert command(*words, "hydra.run.dir=run").code == 0


def fill(place: Path) -> Path:
    """Another program takes the last byte of this disk."""
    filler = place / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(2**20))
            file.flush()
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))
    assert shutil.disk_usage(place).free == 0
    return filler


@pytest.mark.parametrize("moment", ["final", "checkpoint"])
def test_a_disk_that_others_fill_during_a_write_leaves_a_true_status(
    command, words, small_disk: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The disk takes no byte afterwards either: what the failed write had taken is not what was missing."""
    from percasym.config.resolve import composed
    from percasym.engine.engine import SpanEngine

    run = small_disk / "run"
    target, name = {"final": (type(composed(words, ROOT / "conf").family), "save"), "checkpoint": (SpanEngine, "save")}[moment]
    real, written = getattr(target, name), []

    def save(*given: object) -> None:
        written.append(given)
        if moment == "final" or len(written) == 3:
            fill(small_disk)
        real(*given)

    monkeypatch.setattr(target, name, save)
    refused = command(*words, f"hydra.run.dir={run}")
    assert refused.code == 2, refused.err
    last = refused.err.strip().splitlines()[-1]
    assert re.fullmatch(r"disk/run\S* cannot be written \((the disk is full|No space left on device)\)\. The same command .*", last), last
    assert "Traceback" not in refused.err
    assert (status(run)["status"], status(run)["reason"]) == ("failed", last)
    kept = {"final": ["step_000003", "step_000004"], "checkpoint": ["step_000001", "step_000002"]}[moment]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == kept
    assert not (run / "final").exists()
    assert list(run.rglob(".*.partial")) == []

    monkeypatch.setattr(target, name, real)
    again = command(*words, f"hydra.run.dir={run}")
    assert again.code == 2, "the disk is still full"
    assert status(run)["status"] == "failed"
    (small_disk / "filler").unlink()
    assert command(*words, f"hydra.run.dir={run}").code == 0
    assert status(run)["status"] == "done"
    assert [session["step"] for session in status(run)["resumed"]] == [{"final": 4, "checkpoint": 2}[moment]]
    assert (run / "final" / "model.safetensors").is_file()
    assert not (run / RESERVE).exists(), "it is for a run that is being written"


def test_a_disk_without_room_for_the_final_model_is_foreseen(command, words, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from percasym.runs.rundir import RunDirectory

    run, final = small_disk / "run", RunDirectory.final

    def at_the_end(directory: RunDirectory, save: Callable[[Path], None]) -> Path:
        with (small_disk / "filler").open("wb") as file:
            file.write(bytes(shutil.disk_usage(small_disk).free - 100_000))
        return final(directory, save)

    monkeypatch.setattr(RunDirectory, "final", at_the_end)
    refused = command(*words, f"hydra.run.dir={run}")
    assert refused.code == 2
    assert refused.err.strip().splitlines()[-1].startswith("The final model takes 0.0")
    assert status(run)["status"] == "failed"


def test_a_disk_that_may_only_be_read_is_one_sentence(command, words, small_disk: Path, interrupt_at) -> None:
    run = small_disk / "run"
    interrupt_at(2)
    assert command(*words, f"hydra.run.dir={run}").code == 130
    remount(small_disk, "ro")
    refused = command(*words, f"hydra.run.dir={run}")
    assert refused.code == 2
    message = "disk/run/.lock cannot be written (Read-only file system). The same command goes on once it can."
    assert refused.err.strip().splitlines()[-1] == message
    remount(small_disk, "rw")
    assert command(*words, f"hydra.run.dir={run}").code == 0


def test_a_file_where_the_runs_should_lie_is_one_sentence(command, words, tmp_path: Path) -> None:
    (tmp_path / "multirun").write_text("mine")
    refused = command(*words)
    assert refused.code == 2
    assert "Traceback" not in refused.err
    assert "multirun" in refused.err
    assert (tmp_path / "multirun").read_text() == "mine"


def test_a_clock_that_goes_backwards_changes_nothing(command, words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(2_000_000_000, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    assert command(*words, "hydra.run.dir=run").code == 0
    assert status(tmp_path / "run")["seconds"] >= 0


def test_a_font_that_is_missing_is_named(command, words, monkeypatch: pytest.MonkeyPatch) -> None:
    from percasym.tasks import canvas

    monkeypatch.setitem(canvas.FONTS, "bold", "Gone.ttf")
    refused = command(*words, "hydra.run.dir=run")
    assert refused.code == 2
    assert refused.err == "The font file Gone.ttf that travels with percasym is not there. Install percasym again.\n"


def test_a_cache_that_a_library_insists_on_is_named(command, words, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from percasym.launch import main as launch

    def start(settings: object) -> None:
        os.makedirs("/dev/null/cache")  # As torch does for TORCHINDUCTOR_CACHE_DIR, when it is imported.

    monkeypatch.setattr(launch, "start", start)
    refused = command(*words, "hydra.run.dir=run")
    assert refused.code == 2
    assert refused.err == "/dev/null/cache cannot be written (Not a directory). The same command goes on once it can.\n"
    assert not (tmp_path / "run").exists()


def test_a_word_that_the_locale_cannot_read_is_refused(command, tmp_path: Path) -> None:
    refused = command("hydra.run.dir=\udcc3\udca9t\udcc3\udca9")  # What Python makes of "été" in an ASCII locale.
    assert refused.code == 2
    assert refused.err.startswith(r"'hydra.run.dir=\xe9t\xe9' has letters that this locale (")
    assert refused.err.endswith("Set PYTHONUTF8=1.\n")
    assert list(tmp_path.iterdir()) == []


def test_no_cache_no_locale_no_thread_count_and_a_path_with_spaces(words, tmp_path: Path) -> None:
    place = tmp_path / "où est le résultat 数独"
    place.mkdir()
    nowhere = "/dev/null/cache"  # Not even root can write there.
    caches = ("HOME", "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR", "WANDB_DIR")
    kept = {name: os.environ[name] for name in ("PATH", "VIRTUAL_ENV") if name in os.environ}
    outside = kept | dict.fromkeys(caches, nowhere) | {"LC_ALL": "C"}
    command = [sys.executable, str(ROOT / "train.py"), *words, "paradigm.steps=1", "hydra.run.dir='été à 4 h'"]
    done = subprocess.run(command, cwd=place, env=outside, capture_output=True, check=False)
    err = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, err
    assert "Traceback" not in err
    run = place / "été à 4 h"
    assert status(run)["status"] == "done"
    assert (run / "curves.png").exists()
