"""A checkpoint is there in full and unchanged, or it is not there."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from percasym.runs.checkpoint import DONE, SUMS, clear_partial, latest_checkpoint, write_checkpoint, write_directory


def save(directory: Path) -> None:
    (directory / "model").mkdir()
    (directory / "model" / "weights").write_text("new")


def test_the_latest_checkpoint_is_the_one_with_the_highest_step(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nowhere") is None
    for step in (200, 1_000_000, 999_999):  # As text, step_1000000 sorts before step_999999.
        write_checkpoint(tmp_path, step, save)
    assert latest_checkpoint(tmp_path) == (1_000_000, tmp_path / "step_1000000")
    assert (tmp_path / "step_000200" / "model" / "weights").read_text() == "new"


def test_done_is_written_after_everything_else(tmp_path: Path) -> None:
    def save_and_look(directory: Path) -> None:
        save(directory)
        assert not (directory / DONE).exists()
        assert directory.name != "step_000001"

    assert (write_checkpoint(tmp_path, 1, save_and_look) / DONE).exists()


@pytest.mark.parametrize("blow", [RuntimeError, KeyboardInterrupt])
def test_a_failing_save_leaves_the_earlier_checkpoint(tmp_path: Path, blow: type[BaseException]) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").touch()
        raise blow

    write_checkpoint(tmp_path, 1, save)
    with pytest.raises(blow):
        write_checkpoint(tmp_path, 2, fail)
    assert latest_checkpoint(tmp_path) == (1, tmp_path / "step_000001")
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]


def test_half_written_and_foreign_directories_are_ignored(tmp_path: Path) -> None:
    for name in ("step_000009", ".step_000010.partial", "step_final", "step_11"):
        (tmp_path / name).mkdir()
    (tmp_path / ".step_000010.partial" / DONE).touch()
    (tmp_path / "step_11" / DONE).touch()
    assert latest_checkpoint(tmp_path) is None


def test_what_a_killed_process_left_aside_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".final.partial").mkdir()
    (tmp_path / ".final.partial" / "stale").touch()
    assert {path.name for path in write_directory(tmp_path / "final", save).iterdir()} == {"model"}


def test_writing_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    (tmp_path / "step_000003").mkdir()
    (tmp_path / "step_000003" / "old").touch()
    assert not (write_checkpoint(tmp_path, 3, save) / "old").exists()


def flip(file: Path) -> None:
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit of a file": (lambda path: flip(path / "model" / "weights"), "model/weights was changed"),
    "half a file": (lambda path: (path / "model" / "weights").write_text("ne"), "model/weights was changed"),
    "no file": (lambda path: (path / "model" / "weights").unlink(), "model/weights is missing"),
    "another note": (lambda path: (path / DONE).write_text('{"step": 7}'), "DONE was changed"),
    "half the sums": (lambda path: (path / SUMS).write_text((path / SUMS).read_text()[:100]), "SHA256SUMS is not whole"),
    "sums without their end": (
        lambda path: (path / SUMS).write_text((path / SUMS).read_text()[: 64 + 2 + 14 + 1]),
        "SHA256SUMS is not whole",
    ),
    "no sums": (lambda path: (path / SUMS).write_text(""), "SHA256SUMS is not whole"),
    "other bytes": (lambda path: (path / SUMS).write_bytes(b"\xff\xfe"), "it cannot be read: 'utf-8' codec"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(tmp_path: Path, kind: str) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step, save, note="{}")
    do, wrong = DAMAGE[kind]
    do(tmp_path / "step_000002")
    warnings: list[str] = []
    assert latest_checkpoint(tmp_path, warnings.append) == (1, tmp_path / "step_000001")
    (sentence,) = warnings
    assert sentence.startswith(f"{tmp_path / 'step_000002'} is damaged ({wrong}")
    assert sentence.endswith("): the run goes on from what is before it.")
    write_checkpoint(tmp_path, 2, save)
    assert latest_checkpoint(tmp_path, pytest.fail) == (2, tmp_path / "step_000002"), "written again, it is as good as new"


def test_where_all_are_damaged_there_is_none(tmp_path: Path) -> None:
    flip(write_checkpoint(tmp_path, 1, save) / "model" / "weights")
    assert latest_checkpoint(tmp_path) is None


def test_a_checkpoint_from_before_there_were_sums_is_taken_as_it_is(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path, 3, save) / SUMS).unlink()
    assert latest_checkpoint(tmp_path, pytest.fail) == (3, tmp_path / "step_000003")


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_the_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, save, note="a note")
    checked = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=path, capture_output=True, text=True, check=True)
    assert checked.stdout.splitlines() == ["model/weights: OK", "DONE: OK"]


def test_what_a_kill_left_half_written_is_cleared_from_a_run(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoints", 1, save)
    (tmp_path / "checkpoints" / ".step_000002.partial" / "model").mkdir(parents=True)
    (tmp_path / ".final.partial").mkdir()
    (tmp_path / ".meta.json.partial").touch()
    clear_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["DONE", SUMS, "checkpoints", "model", "step_000001", "weights"]
