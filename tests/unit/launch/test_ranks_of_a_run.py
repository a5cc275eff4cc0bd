"""What the launcher of many ranks passes on, says and keeps: signals, missing machines, tracebacks."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from percasym.config.settings import Launch
from percasym.launch import torchrun
from percasym.launch.torchrun import SignalForwarder

NOBODY = 2**22 + 1
"""No process has this id: Linux gives smaller ones."""
RANK = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: print("saves", flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("began", flush=True)
time.sleep(60)
"""


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes whose ids stand where the launcher looks for them, beside that of one which has ended."""
    made = [subprocess.Popen([sys.executable, "-c", RANK], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for rank, pid in enumerate([*(process.pid for process in made), NOBODY]):
        (tmp_path / f"rank{rank}.pid").write_text(str(pid))
    assert [process.stdout.readline() for process in made] == ["began\n"] * 2
    yield made
    for process in made:
        process.kill()
        process.communicate()


def test_a_signal_reaches_the_ranks_and_the_second_one_ends_the_run(ranks, tmp_path: Path) -> None:
    from torch.distributed.elastic.multiprocessing import SignalException

    signals = SignalForwarder(tmp_path, num_ranks=3)
    signals.handle(signal.SIGUSR1, None)
    assert [process.stdout.readline() for process in ranks] == ["saves\n"] * 2
    assert signals.stop == 0, "it asks for a checkpoint, and the run goes on"
    signals.handle(signal.SIGTERM, None)
    assert signals.stop == signal.SIGTERM
    with pytest.raises(SignalException, match="stopped by its user") as stopped:
        signals.handle(signal.SIGINT, None)
    assert stopped.value.sigval == signal.SIGINT
    assert [process.wait(timeout=60) for process in ranks] == [7] * 2


def test_a_signal_before_all_ranks_have_started_ends_the_run_at_once(tmp_path: Path) -> None:
    from torch.distributed.elastic.multiprocessing import SignalException

    (tmp_path / "rank0.pid").write_text(str(NOBODY))
    with pytest.raises(SignalException, match="stopped by its user"):
        SignalForwarder(tmp_path, num_ranks=2).handle(signal.SIGTERM, None)


@pytest.mark.parametrize(("nnodes", "others"), [(2, "another machine"), (3, "2 other machines")])
def test_missing_machines_are_named(nnodes: int, others: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    timers = []

    class Timer:
        """A timer whose time has passed as soon as it starts."""

        def __init__(self, seconds: float, say) -> None:
            self.say = say
            timers.append(self)

        def start(self) -> None:
            self.say()

        def cancel(self) -> None:
            self.say = None

    monkeypatch.setattr(torchrun.threading, "Timer", Timer)
    launch = Launch(nproc=1, nnodes=nnodes, rendezvous="gpu1:29500")
    with torchrun._announced(launch, tmp_path):
        assert capsys.readouterr().err == f"Waiting for {others} at gpu1:29500. Give the same command on each.\n"
    (tmp_path / "rank0.pid").touch()
    with torchrun._announced(launch, tmp_path), torchrun._announced(Launch(), tmp_path):
        assert capsys.readouterr().err == ""
    assert all(timer.say is None for timer in timers)


def test_the_logs_of_the_ranks_are_kept_with_their_failure(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "1" / "stderr.log"
    log.parent.mkdir(parents=True)
    log.write_text("out of memory\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "meta.json").write_text('{"status": "running", "started": 0, "seconds": 0}')
    report = {"rank": 1, "at": 0.0, "traceback": "Traceback: no memory\n"}
    said = torchrun._record_failure(run, "Rank 1 failed", [report], tmp_path)
    assert said == f"Rank 1 failed. What the ranks said is in {run / 'failure.log'}; the same command resumes."
    assert (run / "failure.log").read_text() == (
        "Rank 1, 1970-01-01T00:00:00+00:00:\nTraceback: no memory\n\nLocal rank 1, stderr:\nout of memory\n"
    )
