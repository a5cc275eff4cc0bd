"""The one way to open a file that somebody else may have written: a regular file, of bounded size, as text, JSON, JSON lines or YAML.

Whatever lies at a path is opened without blocking and checked after it is open: a pipe would wait forever, a device has no end, and what
was checked by name may be another file by now. YAML has no aliases, which can expand a kilobyte to gigabytes or make a list contain
itself; JSON and YAML have a limited depth. Imports no library but PyYAML.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

MAX_DOCUMENT_BYTES = 2**24
"""Of a configuration, a record or a table of contents: what we write has kilobytes."""
MAX_LINES_BYTES = 2**31
"""Of a file of JSON lines: a study of 10,000 samples with their pictures has a hundred megabytes."""
MAX_LINE_BYTES = 2**26
"""Of one JSON line: 64 rollouts of 4,096 tokens with their log-probabilities have 5 MB."""
CHUNK = 2**20
MAX_DEPTH = 64
"""Of nested lists and mappings; what we write has 8."""
MAX_NODES = 200_000
"""Values of a YAML document."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's safe loader where PyYAML has it: five times as fast."""


class UnfitFileError(ValueError):
    """A file that is not of the kind, size or form that is read; the message is one sentence."""


@contextmanager
def opened(path: Path, *, max_bytes: int, links: bool = True) -> Iterator[IO[bytes]]:
    """A regular file, opened for reading without blocking; at most `max_bytes` can be in it. Without `links`, none may be a symbolic link.

    Raises UnfitFileError for anything else, OSError where it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:  # A null byte in the name.
        raise UnfitFileError(f"{str(path)!r} is no name of a file ({error}).") from None
    except OSError as error:
        if not links and error.errno == errno.ELOOP:
            raise UnfitFileError(f"{path} is a symbolic link, and a run holds files of its own only.") from None
        raise
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise UnfitFileError(f"{path} is {_kind(about.st_mode)}, not a regular file.")
        if about.st_size > max_bytes:
            raise UnfitFileError(f"{path} has {about.st_size:,} bytes, and at most {max_bytes:,} are read.")
        file = os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    with file:
        yield file


def read_bytes(path: Path, *, max_bytes: int = MAX_DOCUMENT_BYTES, links: bool = True) -> bytes:
    """The content of a regular file. Raises UnfitFileError, also where it grew beyond `max_bytes` since it was opened, or OSError."""
    chunks: list[bytes] = []
    with opened(path, max_bytes=max_bytes, links=links) as file:
        while sum(map(len, chunks)) <= max_bytes and (chunk := file.read(CHUNK)):  # One read of `max_bytes` would allocate them.
            chunks.append(chunk)
    data = b"".join(chunks)
    if len(data) > max_bytes:
        raise UnfitFileError(f"{path} has more than {max_bytes:,} bytes, and no more are read.")
    return data


def read_text(path: Path, *, max_bytes: int = MAX_DOCUMENT_BYTES, links: bool = True) -> str:
    """The content of a regular file of UTF-8. Raises UnfitFileError or OSError."""
    try:
        return read_bytes(path, max_bytes=max_bytes, links=links).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnfitFileError(f"{path} is not text ({error}).") from None


def read_json(path: Path, *, max_bytes: int = MAX_DOCUMENT_BYTES, links: bool = True) -> Any:
    """The value of a JSON file. Raises UnfitFileError or OSError."""
    return parsed_json(read_text(path, max_bytes=max_bytes, links=links), str(path))


def read_yaml(path: Path, *, links: bool = True) -> Any:
    """The value of a YAML file of plain data. Raises UnfitFileError or OSError."""
    return parsed_yaml(read_text(path, links=links), str(path))


def json_lines(
    path: Path, *, max_bytes: int = MAX_LINES_BYTES, max_line_bytes: int = MAX_LINE_BYTES, links: bool = True
) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line of a regular file, its newline included; only the last can lack one.

    Raises UnfitFileError, also for a line beyond `max_line_bytes`, or OSError.
    """
    with opened(path, max_bytes=max_bytes, links=links) as file:
        number = 0
        while line := file.readline(max_line_bytes + 1):
            number += 1
            if len(line) > max_line_bytes:
                raise UnfitFileError(f"Line {number} of {path} has more than {max_line_bytes:,} bytes, and no more are read.")
            yield number, line


def parsed_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text. Raises UnfitFileError, with the place `where`, for anything else, and beyond MAX_DEPTH."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", error)
        raise UnfitFileError(f"{where} is not JSON ({reason}).") from None
    marks = (text.count(b"["), text.count(b"{")) if isinstance(text, bytes) else (text.count("["), text.count("{"))
    if sum(marks) > MAX_DEPTH and depth_exceeds(value, MAX_DEPTH):
        raise UnfitFileError(f"{where} is not read, for its values are nested more than {MAX_DEPTH} deep.")
    return value


def parsed_yaml(text: str, where: str) -> Any:
    """The value of a YAML text of plain data. Raises UnfitFileError, with the place `where`."""
    try:
        check_yaml(text, where)
        return yaml.load(text, Loader=LOADER)
    except UnfitFileError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:  # `2001-99-99` is a ValueError.
        raise UnfitFileError(f"{where} is not YAML of plain data ({_short(error)}).") from None


def check_yaml(text: str, where: str) -> None:
    """Raise UnfitFileError for YAML with an alias or beyond MAX_DEPTH or MAX_NODES, YAMLError where it is malformed; builds nothing."""
    depth = 0
    for nodes, event in enumerate(yaml.parse(text, Loader=LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise UnfitFileError(f"{where} has an alias (*{event.anchor}), which could stand for gigabytes. Write the value out.")
        if depth > MAX_DEPTH:
            raise UnfitFileError(f"{where} is not read, for its values are nested more than {MAX_DEPTH} deep.")
        if nodes > MAX_NODES:
            raise UnfitFileError(f"{where} is not read, for it has more than {MAX_NODES:,} values.")


def depth_exceeds(value: Any, limit: int) -> bool:
    """Whether lists and mappings are nested more than `limit` deep; visits them level by level, so that it cannot recurse too deeply.

    >>> depth_exceeds([[1], {"a": 2}], 2), depth_exceeds([[[1]]], 2)
    (False, True)
    """
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def inside(path: Path, folder: Path) -> bool:
    """Whether a path, its symbolic links followed, lies in a folder.

    >>> inside(Path("/data/a/../../etc/passwd"), Path("/data"))
    False
    """
    return path.resolve().is_relative_to(folder.resolve())


def home(path: Path) -> Path:
    """`path` with ~ replaced. Raises UnfitFileError where there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UnfitFileError(f"{path} begins with the home of a user who is not here ({error}). Write the path out.") from None


def unfit(file: Path, what: str, error: Exception) -> str:
    """A sentence about a file that cannot be used: that of `error` where it names the file already, else `what` with its reason.

    >>> unfit(Path("f"), "is not as a run writes it", KeyError("a")), unfit(Path("f"), "is damaged", ValueError("f is not JSON."))
    ("f is not as a run writes it (it lacks 'a').", 'f is not JSON.')
    """
    reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    return reason if str(file) in reason else f"{file} {what} ({reason.rstrip('.')})."


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    )  # fmt: skip
    return next((name for test, name in kinds if test(mode)), "something else")


def _short(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:200]
