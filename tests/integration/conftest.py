"""The command line of train.py, run inside the test's own process and folder."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest

from percasym.config.resolve import composed
from percasym.config.settings import Settings
from percasym.launch import main as launch
from percasym.launch.sweep.cell_process import Outcome

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def train_py() -> ModuleType:
    """train.py as a module."""
    spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the real class with random weights."""
    import torch

    from percasym.models.architecture import write_blank
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey

    directory, task = tmp_path_factory.mktemp("blank"), Sudoku(verbosity=0)
    samples = [task.sample(SampleKey(task="sudoku", split="base", seed=0, index=index)) for index in range(20)]
    torch.manual_seed(0)
    write_blank(directory, [part for s in samples for part in (s.prompt.question, s.demonstration.perception, s.demonstration.reasoning)])
    return directory


@pytest.fixture
def command(train_py: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Answer]:
    """`command("task=sudoku", ...)`: train.py with these words, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # So that what the command sets is undone after the test.

    def run(*words: str) -> Answer:
        code = launch.main(train_py.train, train_py.CONF, words)
        shown = capsys.readouterr()
        return Answer(code=code, out=shown.out, err=shown.err)

    return run


@pytest.fixture
def resolved(command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Settings]]:
    """`resolved("task=sudoku", ...)`: the settings of every run that a command would start; nothing is run."""
    started: list[Settings] = []
    cells: list[tuple[list[str], Path]] = []

    def cell(command: Sequence[str], path: Path) -> Outcome:
        cells.append(([word for word in command[2:] if not word.startswith("--")], path))
        return Outcome(state="done")

    monkeypatch.setattr(launch, "start", started.append)
    monkeypatch.setattr(launch, "run_cell", cell)

    def settings(*words: str) -> list[Settings]:
        started.clear()
        cells.clear()
        answer = command(*words)
        assert answer.code == 0, answer.err
        return [*started, *(replace(composed(own, ROOT / "conf"), path=path) for own, path in cells)]

    return settings


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[float]]:
    """`interrupt_at(4)`: Ctrl-C before the fourth optimizer step from now on; the list that it gives grows by one with each step begun."""
    from percasym.engine.engine import SpanEngine

    real = SpanEngine.step

    def arm(number: int) -> list[float]:
        begun: list[float] = []

        def step(engine: SpanEngine, lr: float) -> object:
            begun.append(lr)
            if len(begun) == number:
                raise KeyboardInterrupt
            return real(engine, lr)

        monkeypatch.setattr(SpanEngine, "step", step)
        return begun

    return arm
