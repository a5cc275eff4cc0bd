"""What stops before it does harm: a gradient that is no number, a second writer, a disk without room."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from percasym.runs import space
from percasym.runs.identity import RunConflict, mark_ended
from percasym.runs.lock import LOCK, sole_writer
from percasym.runs.rundir import RunDirectory
from percasym.runs.space import RESERVE, Needs, NoRoomError, refusal, require_room_for_run

Usage = namedtuple("Usage", "total used free")
HOLD = """
import sys, time
from pathlib import Path
from percasym.runs.lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
"""Hold the lock of a run until killed."""


@pytest.mark.parametrize("engine", ["torch", "deepspeed0", "deepspeed2", "deepspeed3"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_gradient_that_is_no_number_is_not_applied(tiny_qwen, tiny_batch, make_engine, engine: str, value: str) -> None:
    import torch

    made = make_engine(engine, tiny_qwen())
    with made.gathered_weights() as model:
        before = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    made.backward(made.nll(tiny_batch()).sum() * float(value))
    info = made.step(1e-3)
    assert not torch.isfinite(torch.tensor(info.grad_norm))
    with made.gathered_weights() as model:
        assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_is_refused_with_the_first_ones_number(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(RunConflict) as conflict, sole_writer(tmp_path, timeout_seconds=0.1):
        pass
    assert str(conflict.value) == (
        f"{tmp_path} is being written by process {holder.pid} on {os.uname().nodename}. Wait for it, stop it, or choose another study."
    )


def test_a_writer_that_was_killed_holds_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    began = time.monotonic()
    with sole_writer(tmp_path):
        assert time.monotonic() - began < 5
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(UserWarning, match="has no locks"), sole_writer(tmp_path):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"), sole_writer(tmp_path / "run"):
        pass
    assert (tmp_path / "outside").read_text() == "mine"


def save(directory: Path) -> None:
    (directory / "weights").write_bytes(bytes(10_000))


def test_low_disk_is_foreseen_from_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.open(tmp_path, {})
    run.checkpoint(1, save)
    run.settle()
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: Usage(20_000, 11_000, 9_000))
    with pytest.raises(NoRoomError) as refused:
        run.checkpoint(2, lambda directory: pytest.fail("nothing is begun"))
    sentence = refusal(tmp_path, refused.value)
    assert sentence is not None
    assert sentence.startswith(f"A checkpoint takes 1e-05 GB, and the disk of {tmp_path} has 9e-06 GB left. Make room")
    assert run.latest_checkpoint() == (1, tmp_path / "checkpoints" / "step_000001")


@pytest.fixture
def full_disk_later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """After a call of this, no text file can be created or grow; one that is there can be overwritten and renamed."""
    real = Path.open

    def refuse(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode != "r":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, mode, *rest, **options)

    return lambda: monkeypatch.setattr(Path, "open", refuse)


def test_a_full_disk_takes_the_last_status(tmp_path: Path, full_disk_later: Callable[[], None]) -> None:
    run = RunDirectory.open(tmp_path, {})
    inode = (tmp_path / RESERVE).stat().st_ino
    full_disk_later()
    run.failed("the disk is full")
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert (meta["status"], meta["reason"]) == ("failed", "the disk is full")
    assert (tmp_path / "meta.json").stat().st_ino == inode, "no file was created"
    assert not (tmp_path / RESERVE).exists()


def test_the_launcher_can_say_how_a_run_on_a_full_disk_ended(tmp_path: Path, full_disk_later: Callable[[], None]) -> None:
    RunDirectory.open(tmp_path, {})
    full_disk_later()
    assert mark_ended(tmp_path, "failed", reason="Rank 1 failed")
    assert json.loads((tmp_path / "meta.json").read_text())["reason"] == "Rank 1 failed"


def test_a_run_that_could_not_be_finished_is_failed_and_not_done(tmp_path: Path, full_disk_later: Callable[[], None]) -> None:
    run = RunDirectory.open(tmp_path, {})
    full_disk_later()
    with pytest.raises(OSError, match="No space left"):
        run.finish({})
    run.failed("the disk is full")
    assert json.loads((tmp_path / "meta.json").read_text())["status"] == "failed"


def test_the_reserve_of_a_stranger_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    run = RunDirectory.open(tmp_path / "run", {})
    run.interrupted()
    (run.path / RESERVE).symlink_to(outside)
    with pytest.raises(RunConflict, match="is a symbolic link"):
        RunDirectory.open(run.path, {})
    (run.path / RESERVE).unlink()
    os.mkfifo(run.path / RESERVE)
    RunDirectory.open(run.path, {})
    assert (run.path / RESERVE).stat().st_size == space.RESERVE_BYTES
    assert outside.read_text() == "mine"


NEEDS = {"checkpoint_bytes": 100, "final_bytes": 30}


@pytest.mark.parametrize(
    ("num_checkpoints", "num_kept", "most"),
    [
        (1, 2, 130),  # The only checkpoint, then final/.
        (2, 2, 230),
        (9, 2, 300),  # Two kept and a third being written; final/ comes when one of them is gone.
        (9, 9, 930),  # run.keep_last=0.
    ],
)
def test_room_is_needed_for_all_that_is_kept_and_one_being_written(num_checkpoints: int, num_kept: int, most: int) -> None:
    assert Needs(**NEEDS, num_checkpoints=num_checkpoints, num_kept=num_kept).most_bytes == most


@pytest.mark.parametrize(("kept", "num_kept"), [("run.keep_last=2", 2), ("run.keep_last=2 run.keep_best=true", 3), ("run.keep_last=0", 4)])
def test_what_a_run_will_write_follows_from_its_settings(kept: str, num_kept: int) -> None:
    import torch

    from percasym.app.run import disk_needs
    from percasym.config.resolve import composed

    settings = composed(["paradigm.steps=8", "paradigm.save_every=2", *kept.split()], Path(__file__).resolve().parents[2] / "conf")
    model: Any = torch.nn.Sequential(torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 5, bias=False).requires_grad_(False))
    # 150 weights of 4 bytes and two moments of the 100 that are trained; final/ in bfloat16.
    assert disk_needs(settings, model, torch.bfloat16) == Needs(
        checkpoint_bytes=1400, num_checkpoints=4, num_kept=num_kept, final_bytes=300
    )


def test_a_disk_too_small_for_all_that_will_be_kept_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = Needs(checkpoint_bytes=4 * 10**11, final_bytes=64 * 10**9, num_checkpoints=9, num_kept=2)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: Usage(0, 0, 5 * 10**11))  # Enough for one checkpoint.
    with pytest.raises(NoRoomError) as refused:
        require_room_for_run(tmp_path / "run", needs)
    assert refusal(tmp_path, refused.value) == (
        "What this run writes (2 checkpoints of 400 GB kept while another is written, then final/ of 64 GB) takes 1200 GB, and the disk of "
        f"{tmp_path}/run has 500 GB left. Make room (run.keep_last=1 keeps fewer checkpoints), and give the same command again."
    )
    (tmp_path / "run" / "checkpoints" / "step_000001").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step_000001" / "weights").write_bytes(bytes(1000))
    require_room_for_run(tmp_path / "run", Needs(checkpoint_bytes=10**11, final_bytes=0, num_checkpoints=9, num_kept=4))
    with pytest.raises(NoRoomError):  # One byte more than there is room for, without what is there already.
        require_room_for_run(tmp_path / "run", Needs(checkpoint_bytes=5 * 10**11 + 1001, final_bytes=0, num_checkpoints=1, num_kept=1))
    require_room_for_run(tmp_path / "run", Needs(checkpoint_bytes=5 * 10**11 + 1000, final_bytes=0, num_checkpoints=1, num_kept=1))


def test_the_size_of_the_first_checkpoint_is_known_before_it_is_written(tiny_qwen, make_engine, tmp_path: Path) -> None:
    from percasym.engine.checkpoint import num_bytes

    engine = make_engine("torch", tiny_qwen())
    loss = sum((parameter.float() ** 2).sum() for parameter in engine.model.parameters())
    engine.backward(loss)
    engine.step(1e-3)
    engine.save(tmp_path)
    assert space.size_of(tmp_path) == pytest.approx(num_bytes(engine.model), rel=0.25), "a tiny model has much configuration"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "r/x"), "r/x cannot be written (No space left on device)."),
        (OSError(errno.EROFS, "Read-only file system"), "run cannot be written (Read-only file system)."),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "run cannot be written (the disk is full).",
        ),
        (RuntimeError("size mismatch"), None),
        (OSError(errno.ECONNREFUSED, "Connection refused"), None),
        (ValueError("wrong"), None),
    ],
)
def test_what_a_disk_refuses_is_told_from_defects(error: Exception, said: str | None) -> None:
    sentence = refusal(Path("run"), error)
    assert sentence is None if said is None else sentence is not None and sentence.startswith(said)
