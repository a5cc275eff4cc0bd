"""The W&B mirror, against a module that records what it was asked; and once against the real one, offline."""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from percasym.runs.trackers import WandbTracker


class Recorder:
    """A wandb that only remembers."""

    def __init__(self, key: str | None) -> None:
        self.key, self.calls, self.summary = key, [], {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("wandb")
        module.__spec__ = ModuleSpec("wandb", loader=None)
        module.init = self.init
        module.Settings = lambda **options: options
        module.login = lambda prompt, verify: self.key is not None and not prompt and not verify
        monkeypatch.setitem(sys.modules, "wandb", module)
        monkeypatch.delenv("WANDB_MODE", raising=False)

    def init(self, **options: object) -> "Recorder":
        self.options = options
        return self

    def define_metric(self, *names: str, **options: str) -> None:
        self.calls.append(("metric", *names))

    def log(self, values: dict[str, float]) -> None:
        self.calls.append(("log", values))

    def finish(self, exit_code: int) -> None:
        self.calls.append(("finish", exit_code))


def start(path: Path, **options: object):
    return WandbTracker(**options).start(directory=path, name="study/cell/seed0", identity="abcd1234", config={"seed": 0})


@pytest.mark.parametrize(("key", "mode"), [(None, "offline"), ("k" * 40, "online")])
def test_without_a_key_it_stays_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, mode: str) -> None:
    recorder = Recorder(key)
    recorder.install(monkeypatch)
    start(tmp_path)
    assert recorder.options["mode"] == mode
    assert (recorder.options["id"], recorder.options["resume"], recorder.options["dir"]) == ("abcd1234", "allow", tmp_path)


def test_steps_are_values_so_that_a_resumed_run_may_step_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(None)
    recorder.install(monkeypatch)
    mirror = start(tmp_path)
    mirror.log(7, {"lr": 0.5, "grad/cosine": None})
    mirror.finish({"status": "done"}, failed=False)
    assert recorder.calls[-2:] == [("log", {"step": 7, "lr": 0.5}), ("finish", 0)]
    assert recorder.summary == {"status": "done"}


def test_a_missing_package_is_one_sentence_before_any_run_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb"):
        WandbTracker()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tracker\.mode must be auto, online or offline, got 'sometimes'"):
        WandbTracker(mode="sometimes")


@pytest.mark.slow
def test_the_real_package_writes_an_offline_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    script = (
        "import sys; from pathlib import Path; from percasym.runs.rundir import Run; from percasym.runs.trackers import WandbTracker\n"
        "run = Run.open(Path(sys.argv[1]), {'seed': 0}, tracker=WandbTracker(mode='offline'))\n"
        "run.log(1, {'loss/total': 1.0}); run.finish({'after': {}})\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120, capture_output=True)
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
