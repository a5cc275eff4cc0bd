"""The one opener: whatever lies at a path, reading it ends at once, in a value or in one sentence, and in bounded memory."""

from __future__ import annotations

import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from percasym.config.files import (
    MAX_DEPTH,
    UnfitFileError,
    home,
    inside,
    json_lines,
    opened,
    parsed_json,
    parsed_yaml,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
)


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, Path]:
    """A path of each kind that is no regular file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.close()
    return {"a pipe": tmp_path / "pipe", "a folder": tmp_path / "folder", "a device": Path("/dev/zero")}


def test_only_regular_files_are_read_and_nothing_blocks(kinds: dict[str, Path]) -> None:
    for kind, path in kinds.items():
        with pytest.raises(UnfitFileError, match=f"is {kind}, not a regular file"):
            read_bytes(path)
    with pytest.raises(OSError, match="No such device or address"):
        read_bytes(kinds["a pipe"].with_name("socket"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    file.touch()
    os.truncate(file, 3 * 2**30)
    with pytest.raises(UnfitFileError, match="has 3,221,225,472 bytes, and at most "):
        read_bytes(file)
    with pytest.raises(UnfitFileError, match="has 3,221,225,472 bytes, and at most "):
        list(json_lines(file))


def test_a_line_that_is_too_long_is_not_held(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    file.touch()
    os.truncate(file, 2**30)
    tracemalloc.start()
    with pytest.raises(UnfitFileError, match=r"Line 1 of .* has more than 1,000 bytes"):
        list(json_lines(file, max_line_bytes=1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "grows"
    file.write_bytes(b"12345")
    with opened(file, max_bytes=5) as held:
        file.write_bytes(b"123456789")
        assert len(held.read(6)) == 6, "so read_bytes, which reads one byte more than it may, notices"


def test_reading_a_small_file_takes_no_memory_for_a_large_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    tracemalloc.start()
    try:
        assert read_bytes(tmp_path / "f", max_bytes=2**34) == b"x"
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_links_are_followed_only_where_they_may_be(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "link").symlink_to("a.json")
    assert read_json(tmp_path / "link") == [1]
    with pytest.raises(UnfitFileError, match="link is a symbolic link"):
        read_json(tmp_path / "link", links=False)


def test_names_that_are_no_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnfitFileError, match="is no name of a file"):
        read_bytes(tmp_path / "a\0b")
    with pytest.raises(UnfitFileError, match="begins with the home of a user who is not here"):
        home(Path("~no_such_user_here/x"))
    assert home(Path("~/x")) == Path.home() / "x"


def test_yaml_has_no_aliases_no_tags_and_no_depth() -> None:
    lists = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    mappings = "a: &a {x: 1}\nb: {<<: *a}\n"
    for text in (lists, mappings, "a: &a [*a]\n", "&a a: *a\n"):
        with pytest.raises(UnfitFileError, match=r"f has an alias \(\*[ab]\)"):
            parsed_yaml(text, "f")
    for text in ("[" * 100_000, "{a: " * 1000, "- " * 100_000 + "x"):
        with pytest.raises(UnfitFileError, match="f is not"):
            parsed_yaml(text, "f")
    for text in ("a: !!python/object/apply:os.getcwd []", "a: 2001-99-99", "a: [", "\x00", f"a: {'9' * 5000}"):
        with pytest.raises(UnfitFileError, match="f is not YAML of plain data"):
            parsed_yaml(text, "f")
    assert parsed_yaml("a: [1, {b: null}]", "f") == {"a": [1, {"b": None}]}


def test_json_has_a_depth() -> None:
    assert parsed_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f")
    for depth in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(UnfitFileError, match="nested"):
            parsed_json("[" * depth + "]" * depth, "f")
    with pytest.raises(UnfitFileError, match="f is not JSON"):
        parsed_json(b"\xff", "f")
    assert len(parsed_json("[" + "[]," * 1000 + "[]]", "f")) == 1001, "many lists are not deep ones"


def test_a_path_is_inside_only_where_its_links_lead_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to("/etc/hostname")
    assert inside(tmp_path / "data" / "a.png", tmp_path / "data")
    for name in ("../a.png", "/etc/passwd", "link", "x/../../a.png"):
        assert not inside(tmp_path / "data" / name, tmp_path / "data")


def test_a_file_that_grows_while_it_is_read_is_cut_off() -> None:
    with pytest.raises(UnfitFileError, match=r"/proc/self/status has more than 10 bytes, and no more are read\."):
        read_bytes(Path("/proc/self/status"), max_bytes=10)  # A regular file of 0 bytes, by its size.


def test_text_that_is_none_and_yaml_of_a_million_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(UnfitFileError, match=r"a is not text \('utf-8' codec can't decode byte 0xff"):
        read_text(tmp_path / "a")
    (tmp_path / "a").write_text("[1, 2, 3, 4]")
    assert read_yaml(tmp_path / "a") == [1, 2, 3, 4]
    monkeypatch.setattr("percasym.config.files.MAX_NODES", 5)
    with pytest.raises(UnfitFileError, match=r"a is not read, for it has more than 5 values\."):
        read_yaml(tmp_path / "a")
    (tmp_path / "a").write_text("x" * 20 + "\n")
    assert list(json_lines(tmp_path / "a")) == [(1, b"x" * 20 + b"\n")]
    with pytest.raises(UnfitFileError, match=r"Line 1 of .*a has more than 10 bytes, and no more are read\."):
        list(json_lines(tmp_path / "a", max_line_bytes=10))
