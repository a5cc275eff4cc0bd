"""A run directory holds every number once, complete, and of one configuration only."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from percasym.runs import rundir
from percasym.runs.identity import Found, RunConflict, find, first_difference
from percasym.runs.records import plain
from percasym.runs.rundir import RunDirectory
from percasym.runs.trackers import NoTracker
from percasym.types import Estimate

CONFIG = {"seed": 0, "model": {"lr": 1e-05, "size": "tiny"}, "task": {"givens": (7, 9)}, "run": {"overwrite": False}}


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def steps(path: Path) -> list[int]:
    return [json.loads(text)["step"] for text in (path / "metrics.jsonl").read_text().splitlines()]


def save_weights(directory: Path) -> None:
    (directory / "weights").write_text("1 2 3")


def test_a_new_run_holds_its_configuration_and_where_it_came_from(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path / "study" / "cell" / "seed0", CONFIG, about={"device": "cpu"})
    assert run.status == "new"
    held = yaml.safe_load((run.path / "config.yaml").read_text())
    assert held["model"] == {"lr": 1e-05, "size": "tiny"}
    assert held["task"] == {"givens": [7, 9]}
    meta = json.loads((run.path / "meta.json").read_text())
    assert {"git", "dirty", "versions", "device", "argv", "status", "started", "seconds"} <= set(meta)
    assert meta["status"] == "running"
    assert meta["device"] == "cpu"
    assert "python" in meta["versions"]


def test_no_secret_of_the_environment_reaches_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2" * 5)
    run = RunDirectory.open(tmp_path, CONFIG)
    run.finish({})
    assert not any("hunter2" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_a_finished_run_is_recognised_and_left_alone(tmp_path: Path) -> None:
    clock = Clock()
    run = RunDirectory.open(tmp_path, CONFIG, clock=clock)
    clock.now += 90
    run.finish({"before": {"end_to_end": Estimate(mean=0.25, ci95=(0.1, float("nan")), n=8)}})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    again = RunDirectory.open(tmp_path, CONFIG)
    assert again.status == "finished"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "status": "done",
        "before": {"end_to_end": {"mean": 0.25, "ci95": [0.1, None], "n": 8}},
    }
    assert json.loads((tmp_path / "meta.json").read_text())["seconds"] == 90
    with pytest.raises(AssertionError, match="is done"):
        again.log(1, {"loss/total": 1.0})


def test_another_configuration_is_refused_with_the_first_differing_key(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, CONFIG)
    other = CONFIG | {"model": {"lr": 2e-05, "size": "small"}}
    with pytest.raises(RunConflict) as conflict:
        RunDirectory.open(tmp_path, other)
    assert str(conflict.value) == (
        f"{tmp_path} holds a run with model.lr=1e-05, this one asks for model.lr=2e-05. Choose another study, or run.overwrite=true."
    )


def test_a_path_is_new_resumable_or_finished(tmp_path: Path) -> None:
    path, wanted = tmp_path / "run", plain(CONFIG)
    assert find(path, wanted) == Found(status="new")
    run = RunDirectory.open(path, CONFIG)
    found = find(path, wanted)
    assert (found.status, found.config) == ("resumable", wanted)
    assert found.meta is not None and found.meta["status"] == "running"
    assert find(path).status == "resumable", "without a configuration any run will do"
    run.finish({})
    assert find(path, wanted).status == "finished"
    overwritten = find(path, wanted | {"seed": 1}, overwrite=True)
    assert overwritten.status == "new"
    assert overwritten.meta is not None, "there is a run to be deleted"
    (tmp_path / "file").touch()
    with pytest.raises(RunConflict, match="is a file, not a run directory"):
        find(tmp_path / "file")


def test_how_a_run_is_kept_is_no_difference(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, CONFIG)
    assert RunDirectory.open(tmp_path, CONFIG | {"run": {"overwrite": True}, "tracker": {"project": "mine"}}).status == "resumable"


def test_how_many_processes_train_is_no_difference(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, CONFIG | {"launch": {"nproc": 8, "nnodes": 1, "rendezvous": None}})
    assert RunDirectory.open(tmp_path, CONFIG | {"launch": {"nproc": 2, "nnodes": 2, "rendezvous": "a:1"}}).status == "resumable"


@pytest.mark.parametrize(
    ("held", "wanted", "difference"),
    [
        ({"a": 1}, {}, "a=1, this one has no a"),
        ({}, {"a": {"b": None}}, "no a.b, this one asks for a.b=null"),
        ({"a": [7, 9]}, {"a": [7, 8]}, "a=[7, 9], this one asks for a=[7, 8]"),
        ({"a": "x", "b": 1}, {"b": 2, "a": "y"}, "b=1, this one asks for b=2"),
        ({"a": {}}, {"a": {}}, None),
    ],
)
def test_differences_read_as_a_sentence(held: Mapping[str, object], wanted: Mapping[str, object], difference: str | None) -> None:
    assert first_difference(held, wanted) == difference


def test_overwriting_deletes_the_run_and_nothing_else(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path, CONFIG)
    run.log(1, {"loss/total": 1.0})
    run.final(save_weights)
    (tmp_path / "thesis.tex").write_text("mine")
    again = RunDirectory.open(tmp_path, CONFIG | {"seed": 1}, overwrite=True)
    assert again.status == "new"
    assert not (tmp_path / "metrics.jsonl").exists()
    assert not (tmp_path / "final").exists()
    assert (tmp_path / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("name", ["final", "config.yaml", "samples"])
def test_a_directory_that_holds_something_else_is_refused_even_when_overwriting(tmp_path: Path, name: str) -> None:
    if "." in name:
        (tmp_path / name).write_text("name: production\n")
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(RunConflict, match=f"holds {name} but no run"):
        RunDirectory.open(tmp_path, CONFIG, overwrite=True)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    "meta",
    ["", "[]", "7", '{"id": "x", "status": "running"}', '{"id": 1, "status": "running", "seconds": 1.0}', "[" * 40_000]
    + [f'{{"id": "x", "status": "running", "seconds": {seconds}}}' for seconds in ('"x"', "null", "NaN", "9" * 400)],
    ids=lambda text: text[:60],
)
def test_a_damaged_account_of_a_run_is_refused(tmp_path: Path, meta: str) -> None:
    RunDirectory.open(tmp_path, CONFIG)
    (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(RunConflict, match=r"meta.json (cannot be read \(.*\)|is not JSON \(.*\)). Restore it, or clear the run away.$"):
        RunDirectory.open(tmp_path, CONFIG)


def test_a_damaged_configuration_is_refused(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, CONFIG)
    (tmp_path / "config.yaml").write_text("a: [1, ")
    with pytest.raises(RunConflict, match="cannot be read as a configuration"):
        RunDirectory.open(tmp_path, CONFIG)


def test_a_run_stopped_while_being_opened_is_new(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, CONFIG)
    (tmp_path / "config.yaml").unlink()  # meta.json is written first, config.yaml last.
    assert RunDirectory.open(tmp_path, CONFIG).status == "new"


def test_resuming_deletes_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path, CONFIG)
    run.samples("test", 0, [{"index": 0}])
    for step in range(4):
        run.log(step, {"loss/total": 1.0 / (step + 1)})
        if step == 2:
            run.samples("test", step, [{"index": 0}])
            run.checkpoint(step, save_weights)
    run.samples("test", 3, [{"index": 0}])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss/to')  # The line that a kill cut short.
    run.interrupted()
    again = RunDirectory.open(tmp_path, CONFIG)
    assert again.status == "resumable"
    assert again.latest_checkpoint() == (2, tmp_path / "checkpoints" / "step_000002")
    assert steps(tmp_path) == [0, 1, 2]
    assert again.read_samples("test", 2) == [{"index": 0}]
    assert again.read_samples("test", 3) is None
    again.log(3, {"loss/total": 0.25})
    assert steps(tmp_path) == [0, 1, 2, 3]
    assert [session["step"] for session in json.loads((tmp_path / "meta.json").read_text())["resumed"]] == [2]


def test_what_was_logged_after_the_checkpoint_of_the_same_step_is_logged_once(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path, CONFIG)
    run.log(2, {"loss/total": 1.0})
    run.checkpoint(2, save_weights)
    run.settle()
    run.log(2, {"eval/end_to_end": 0.5})  # The evaluation after training; then the process is killed.
    again = RunDirectory.open(tmp_path, CONFIG)
    again.log(2, {"eval/end_to_end": 0.5})
    assert steps(tmp_path) == [2, 2]


def test_resuming_without_a_checkpoint_starts_from_nothing(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path, CONFIG)
    run.log(0, {"eval/end_to_end": 0.1})
    run.samples("test", 0, [{"index": 0}])
    again = RunDirectory.open(tmp_path, CONFIG)  # The first one was killed: its status is still `running`.
    assert again.status == "resumable"
    assert again.latest_checkpoint() is None
    assert steps(tmp_path) == []
    assert again.read_samples("test", 0) is None


def test_a_failure_is_kept_with_its_reason_until_the_run_resumes(tmp_path: Path) -> None:
    clock = Clock()
    run = RunDirectory.open(tmp_path, CONFIG, clock=clock)
    clock.now += 10
    run.failed("out of memory")
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert (meta["status"], meta["reason"], meta["seconds"]) == ("failed", "out of memory", 10)
    clock.now += 500
    again = RunDirectory.open(tmp_path, CONFIG, clock=clock)
    clock.now += 5
    again.finish({})
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["seconds"] == 15
    assert "reason" not in meta


def test_a_clock_that_is_set_back_takes_no_time_away(tmp_path: Path) -> None:
    clock = Clock()
    run = RunDirectory.open(tmp_path, CONFIG, clock=clock)
    clock.now += 10
    run.interrupted()
    run = RunDirectory.open(tmp_path, CONFIG, clock=clock)
    clock.now -= 7200
    run.checkpoint(1, save_weights)
    run.finish({})
    assert json.loads((tmp_path / "meta.json").read_text())["seconds"] == 10


def test_numbers_that_are_not_finite_stay_strict_json_and_are_named(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path, CONFIG)
    run.log(1, {"grad/cosine": float("nan"), "loss/total": float("inf"), "lr": 1e-3})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert record.pop("not_finite") == {"grad/cosine": "nan", "loss/total": "inf"}
    assert record == {"step": 1, "grad/cosine": None, "loss/total": None, "lr": 1e-3}


def test_a_value_that_is_no_number_is_refused_rather_than_written_as_its_repr(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path, CONFIG)
    with pytest.raises(TypeError, match="got object"):
        run.log(1, {"loss/total": object()})
    assert not (tmp_path / "metrics.jsonl").exists()


class Spy(NoTracker):
    """A tracker that records its calls."""

    __slots__ = ("calls", "num_lines")

    def start(self, **about: object) -> "Spy":
        object.__setattr__(self, "calls", [about["identity"]])
        object.__setattr__(self, "num_lines", about["num_lines"])
        return self

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        self.calls.append((step, dict(values)))

    def finish(self, summary: Mapping[str, object], *, failed: bool) -> None:
        self.calls.append(("finished", failed))


def test_a_tracker_mirrors_each_step_and_is_always_closed(tmp_path: Path) -> None:
    first, second = Spy(), Spy()
    run = RunDirectory.open(tmp_path, CONFIG, tracker=first)
    run.log(1, {"lr": 0.5})
    run.failed("power cut")
    assert first.calls[1:] == [(1, {"lr": 0.5}), ("finished", True)]
    RunDirectory.open(tmp_path, CONFIG, tracker=second).finish({})
    assert second.calls == [first.calls[0], ("finished", False)], "the same identity continues the same mirror"
    third = Spy()
    RunDirectory.open(tmp_path, CONFIG, tracker=third)
    assert not hasattr(third, "calls"), "a finished run is not mirrored again"


class Gone(Spy):
    """A tracker whose service is gone at the end."""

    __slots__ = ()

    def finish(self, summary: Mapping[str, object], *, failed: bool) -> None:
        raise ConnectionError("no route")


@pytest.mark.parametrize(("end", "status"), [(lambda run: run.finish({}), "done"), (lambda run: run.failed("x"), "failed")])
def test_a_tracker_that_fails_at_the_end_takes_nothing_from_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: Callable[[RunDirectory], None], status: str
) -> None:
    run = RunDirectory.open(tmp_path, CONFIG, tracker=Gone())
    end(run)
    assert json.loads((tmp_path / "meta.json").read_text())["status"] == status
    said = capsys.readouterr().err
    assert f"The tracker did not take the end of {tmp_path} (ConnectionError: no route). The directory has all of it." in said


def test_overwriting_deletes_the_events_of_tensorboard(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, CONFIG)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1").write_text("old")
    RunDirectory.open(tmp_path, CONFIG, overwrite=True)
    assert not (tmp_path / "tensorboard").exists()


def test_a_run_resumed_from_a_copied_checkpoint_has_the_identity_of_the_run_it_was_copied_from(tmp_path: Path) -> None:
    first, second = Spy(), Spy()
    here = RunDirectory.open(tmp_path / "here", CONFIG, tracker=first)
    here.log(0, {"lr": 0.5})
    here.log(1, {"lr": 0.5})
    checkpoint = here.checkpoint(1, save_weights)
    here.settle()
    RunDirectory.open(tmp_path / "there", CONFIG).interrupted()
    shutil.copytree(checkpoint, tmp_path / "there" / "checkpoints" / checkpoint.name)
    there = RunDirectory.open(tmp_path / "there", CONFIG, tracker=second)
    assert second.calls == first.calls[:1]
    assert second.num_lines == 2
    assert json.loads((there.path / "meta.json").read_text())["id"] == first.calls[0]
    again = there.checkpoint(2, save_weights)
    there.settle()
    assert json.loads((again / "DONE").read_text())["num_lines"] == 2, "lines that lie elsewhere count"


def test_overwriting_deletes_the_sessions_of_the_tracker_and_no_others(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, CONFIG, tracker=(spy := Spy()))
    for identity in (spy.calls[0], "99999999"):
        (tmp_path / "wandb" / f"offline-run-2026-{identity}").mkdir(parents=True)
    RunDirectory.open(tmp_path, CONFIG, overwrite=True)
    assert [path.name for path in (tmp_path / "wandb").iterdir()] == ["offline-run-2026-99999999"]


def test_run_directories_need_no_torch() -> None:
    heavy = ("torch", "transformers", "hydra", "omegaconf", "wandb", "matplotlib")
    loaded = "import sys, percasym.runs.rundir, percasym.metrics\nfrom percasym.report import curves, gallery, load, tables\n"
    check = f"{loaded}print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_without_git_or_a_package_a_run_records_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rundir, "PACKAGES", ("numpy", "no-such-package"))
    run = RunDirectory.open(tmp_path / "run", CONFIG)
    meta = json.loads((run.path / "meta.json").read_text())
    assert (meta["git"], meta["dirty"]) == (None, None)
    assert meta["versions"].keys() == {"python", "numpy"}
    with run.progress(1, "training") as bar:
        bar.advance(1, loss=0.5)
    run.finish({})


def test_a_run_without_a_tracker_sends_nothing(tmp_path: Path) -> None:
    mirror = NoTracker().start(directory=tmp_path, identity="a", config={}, num_lines=0)
    assert [mirror.log(1, {}), mirror.samples("test", 1, []), mirror.finish({}, failed=False)] == [None] * 3
