"""The W&B mirror, against a module that records its calls; tests/integration/test_wandb.py has the real one, offline."""

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from percasym.runs.rundir import RunDirectory
from percasym.runs.trackers import WandbMirror, WandbTracker

CONFIG = {
    "study": "main",
    "task": {"_target_": "percasym.tasks.graph_coloring.task.GraphColoring"},
    "model": {"_target_": "percasym.models.internvl35.InternVL35"},
    "paradigm": {"_target_": "percasym.config.paradigm.Rl"},
    "balance": {"_target_": "percasym.balance.ngdiff.NGDiff"},
}


class Unreachable(Exception):  # noqa: N818, a name of W&B's stands for it
    """wandb.Error."""


class Recorder:
    """A wandb that only records."""

    def __init__(self, key: str | None = None, num_rows: int = 0, broken: str | None = None) -> None:
        self.key, self.step, self.broken = key, num_rows, broken
        self.calls, self.hidden, self.summary, self.id, self.dir = [], {}, {}, "abcd1234", "somewhere/files"

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("wandb")
        module.__spec__ = ModuleSpec("wandb", loader=None)
        module.init, module.Error = self.init, Unreachable
        module.Settings = lambda **options: options
        module.Table = lambda columns, data: SimpleNamespace(columns=columns, data=data)
        module.Image = lambda image: image.size
        module.login = lambda prompt, verify: self.key is not None and not prompt and not verify
        monkeypatch.setitem(sys.modules, "wandb", module)
        monkeypatch.delenv("WANDB_MODE", raising=False)

    def init(self, **options: object) -> "Recorder":
        if self.broken:
            raise Unreachable(self.broken)
        self.options = options
        return self

    def define_metric(self, name: str, *, step_metric: str | None = None, hidden: bool = False) -> None:
        assert (step_metric is None) == (name == "step")
        self.hidden[name] = hidden

    def log(self, values: dict[str, object], *, step: int, commit: bool) -> None:
        self.calls.append((step, values, commit))

    def finish(self, exit_code: int) -> None:
        self.calls.append(("finish", exit_code))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    made.install(monkeypatch)
    return made


def start(path: Path, num_lines: int = 0, **options: object) -> WandbMirror:
    return WandbTracker(**options).start(directory=path, identity="abcd1234", config=CONFIG, num_lines=num_lines)


def write_lines(path: Path, *records: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize(("key", "mode", "resume"), [(None, "offline", None), ("k" * 40, "online", "allow")])
def test_without_a_key_it_stays_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, mode: str, resume: str | None
) -> None:
    recorder = Recorder(key)
    recorder.install(monkeypatch)
    start(tmp_path)
    assert recorder.options["mode"] == mode
    assert (recorder.options["id"], recorder.options["resume"], recorder.options["dir"]) == ("abcd1234", resume, tmp_path)


def test_a_run_stands_in_the_group_of_its_study(tmp_path: Path, recorder: Recorder) -> None:
    start(tmp_path / "main" / "cell" / "seed0", tags=("mine",))
    found = {name: recorder.options[name] for name in ("group", "job_type", "name", "tags", "config")}
    tags = ["graph_coloring", "internvl35", "ngdiff", "mine"]
    assert found == {"group": "main", "job_type": "rl", "name": "cell/seed0", "tags": tags, "config": CONFIG}


def test_a_line_is_a_row_and_the_step_one_of_its_numbers(tmp_path: Path, recorder: Recorder) -> None:
    mirror = start(tmp_path)
    mirror.log(7, {"lr": 0.5, "grad/cosine": None})
    mirror.log(7, {"eval/perception/lo": 0.25})
    mirror.finish({"status": "done"}, failed=False)
    assert recorder.calls == [(0, {"step": 7, "lr": 0.5}, True), (1, {"step": 7, "eval/perception/lo": 0.25}, True), ("finish", 0)]
    assert recorder.hidden == {"step": True, "lr": False, "eval/perception/lo": True}
    assert recorder.summary == {"status": "done"}


def test_a_run_that_is_opened_again_is_sent_what_it_lacks_and_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(
        tmp_path / "metrics.jsonl", {"step": 0, "lr": 1.0}, {"step": 1, "lr": 2.0}, {"step": 2, "lr": None, "not_finite": {"lr": "nan"}}
    )
    for num_rows, sent in {0: [0, 1, 2, 3, 4], 2: [2, 3, 4], 4: [4]}.items():  # With 4 it was stopped a row beyond the checkpoint.
        recorder = Recorder("k" * 40, num_rows)
        recorder.install(monkeypatch)
        mirror = start(tmp_path, num_lines=3)
        mirror.log(3, {"lr": 4.0})
        mirror.log(4, {"lr": 5.0})
        assert [row for row, _, _ in recorder.calls] == sent
        assert recorder.calls[-1] == (4, {"step": 4, "lr": 5.0}, True)
    assert "not_finite" not in recorder.hidden


def test_lines_that_lie_elsewhere_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path / "metrics.jsonl", {"step": 0, "lr": 1.0})  # Of 10 lines that the run had logged before it was copied.
    recorder = Recorder("k" * 40, 10)
    recorder.install(monkeypatch)
    start(tmp_path, num_lines=10).log(6, {"lr": 2.0})
    assert recorder.calls == [(10, {"step": 6, "lr": 2.0}, True)]


def test_samples_share_the_row_of_their_numbers(tmp_path: Path, recorder: Recorder, evaluated: dict) -> None:
    mirror = start(tmp_path)
    mirror.samples("test", 0, [evaluated])
    mirror.log(0, {"eval/end_to_end": 1.0})
    (row, shown, commit), (same, _, _) = recorder.calls
    assert (row, commit) == (same, False)
    table = shown["samples/test"]
    assert table.data[0][table.columns.index("picture")] == (2, 3), "a picture, not its bytes"


def test_recorded_samples_are_sent_again(tmp_path: Path, recorder: Recorder, evaluated: dict) -> None:
    write_lines(tmp_path / "metrics.jsonl", {"step": 0, "lr": 1.0}, {"step": 2, "lr": 2.0}, {"step": 2, "eval/end_to_end": 0.5})
    for name in ("test_000000", "test_000002", "my_notes"):
        write_lines(tmp_path / "samples" / f"{name}.jsonl", evaluated)
    start(tmp_path, num_lines=3)
    assert [(row, [*values]) for row, values, commit in recorder.calls if not commit] == [(0, ["samples/test"]), (1, ["samples/test"])]


def test_earlier_sessions_offline_are_not_sent_over_a_later_one(tmp_path: Path, recorder: Recorder) -> None:
    old, own, others = (tmp_path / "wandb" / f"offline-run-2026-{name}" for name in ("1-abcd1234", "2-abcd1234", "1-99999999"))
    for session in (old, own, others):
        session.mkdir(parents=True)
        (session / f"run-{session.name[-8:]}.wandb").touch()
    recorder.dir = str(own / "files")
    start(tmp_path)
    assert [*tmp_path.rglob("*.synced")] == [old / "run-abcd1234.wandb.synced"]


def test_a_run_that_w_and_b_does_not_keep_supersedes_nothing(tmp_path: Path, recorder: Recorder) -> None:
    session = tmp_path / "wandb" / "offline-run-2026-1-abcd1234"
    session.mkdir(parents=True)
    (session / "run-abcd1234.wandb").touch()
    start(tmp_path)  # WANDB_MODE=disabled gives a run whose files lie nowhere.
    assert not [*tmp_path.rglob("*.synced")]


def test_a_server_that_does_not_answer_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Recorder("k" * 40, broken="Run initialization\nhas timed out").install(monkeypatch)
    with pytest.raises(ValueError, match=r"^W&B could not open the run \(Run initialization has timed out\)\. .*tracker\.mode=offline\.$"):
        RunDirectory.open(tmp_path, CONFIG, tracker=WandbTracker())
    assert json.loads((tmp_path / "meta.json").read_text())["status"] == "failed"


def test_a_missing_package_is_one_sentence_before_any_run_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb"):
        WandbTracker()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tracker\.mode must be auto, online or offline, got 'sometimes'"):
        WandbTracker(mode="sometimes")


def test_a_mode_that_is_chosen_is_used_and_samples_of_a_row_that_is_there_are_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluated: dict
) -> None:
    recorder = Recorder(key="a key", num_rows=1)
    recorder.install(monkeypatch)
    mirror = WandbTracker(mode="offline").start(directory=tmp_path, identity="abcd1234", config=CONFIG, num_lines=0)
    assert recorder.options["mode"] == "offline"
    mirror.samples("test", 1, [evaluated])
    mirror.log(1, {"loss/total": 0.5})
    assert recorder.calls == []
    mirror.log(2, {"loss/total": 0.25})
    assert recorder.calls == [(1, {"step": 2, "loss/total": 0.25}, True)]
