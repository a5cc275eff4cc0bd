"""A checkpoint is there in full, or it is not there."""

from pathlib import Path

import pytest

from percasym.runs.checkpoint import DONE, latest_checkpoint, write_checkpoint, write_directory


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
