"""Read rows from a file: JSON lines, a JSON array, either of them gzipped, or Parquet; the kind follows from the content, not by name.

Lines and elements are read one by one, so memory depends on the longest row (at most `max_bytes`) and not on the file. A compressed file
that expands beyond reason is refused on the way.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any

from percasym.config.files import opened
from percasym.tasks.given.parquet import records, repeated_column

Record = Mapping[str, Any]
"""The columns of a row by name."""

MOST_BYTES = 2**44
"""Of a file of rows; no more than one row of it is held."""
CHUNK = 2**20
"""Bytes that are read of a JSON array, or of a gzip file, at a time."""
EXPANDED_BYTES, EXPANSION = 2**30, 200
"""A compressed file may expand to either (our choice): gzip makes rows 5 to 30 times as small, and all rows stay in memory."""
ROW_BYTES = 256
"""That a row takes at least, whatever its file says."""
UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""Its byte order marks."""
TABLES = (".csv", ".tsv", ".xls", ".xlsx")
"""Endings of tables that are not read; a reader of one learns how to write rows."""
BOM = b"\xef\xbb\xbf"
SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An unparsed row."""

    where: str
    """Its location, for error messages: "rows.jsonl, line 7"."""
    split: str | None
    """None if the split is given by a column or derived from the picture."""
    raw: bytes | Record | None
    """A line of JSON, or the columns; None for a line over the size limit."""
    start: int | None = None
    """Of a line in a file: its first byte, at which it can be read again."""

    @property
    def record(self) -> Record:
        """Its columns without those that are null: pandas and datasets write null where a row has no such column.

        Raises ValueError when the line is no JSON object.
        """
        if self.raw is None:
            raise ValueError("it is longer than task.max_bytes.")
        record = parsed(self.raw) if isinstance(self.raw, bytes) else self.raw
        if not isinstance(record, Mapping):
            raise ValueError(f"it is no JSON object, got {type(record).__name__}.")
        return {name: value for name, value in record.items() if value is not None and value == value}  # NaN, too, differs from itself.


def parsed(line: bytes) -> object:
    """The value of a line of JSON. Raises ValueError when it is none, or an object in it has a key twice."""
    try:
        return json.loads(line, object_pairs_hook=_unique)
    except _RepeatedKeyError as error:
        raise ValueError(str(error)) from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
        raise ValueError(f"it is not JSON ({error}).") from None
    except RecursionError:
        raise ValueError("it is nested too deeply.") from None


class _RepeatedKeyError(Exception):
    """A JSON object with a key twice; the message is a sentence about its row."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises _RepeatedKeyError: Python would take the last value, other readers the first."""
    if len(found := dict(pairs)) < len(pairs):
        (key, number), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise _RepeatedKeyError(f"it has the key {key!r:.60} {number} times. Leave it once.")
    return found


def read_rows(path: Path, *, max_bytes: int, split: str | None = None) -> Iterator[Row]:
    """The rows of a file, or of a folder of Parquet files.

    Raises ValueError when there is no such file, or it is none of the kinds that are read.
    """
    if path.is_dir() and (parts := sorted(path.glob("*.parquet"))):
        yield from parquet_rows(parts, max_bytes=max_bytes, named=True)
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder without Parquet files. Give task.path a file of JSON lines, a JSON array or Parquet.")
    if not path.exists():
        raise ValueError(f"There is no file {path}. Give task.path a file of JSON lines, a JSON array or Parquet.")
    with _opened(path) as file:
        head = file.read(4)
    if head == b"PAR1":
        yield from parquet_rows([path], max_bytes=max_bytes)
        return
    try:
        with _opened(path, gzipped=head.startswith(b"\x1f\x8b")) as file:
            start = file.read(4)
            _refuse_other_encodings(path, start)
            file.seek(len(BOM) if start.startswith(BOM) else 0)
            begin = file.tell()
            first = next((char for char in iter(lambda: file.read(1), b"") if char not in b" \t\r\n"), b"")
            if first not in b"{[" and path.suffix.lower() in TABLES:
                raise ValueError(
                    f"{path} is no JSON. Give task.path a file of JSON lines, a JSON array or Parquet; a table of pandas writes one with "
                    "to_json(path, orient='records', lines=True)."
                )
            if first == b"{" and not file.readline(max_bytes).strip():
                raise ValueError(f"{path} is one JSON object over several lines. Write an array of rows, or one object a line.")
            file.seek(begin)
            for number, row in enumerate((_array if first == b"[" else _lines)(path, file, max_bytes, split), start=1):
                if isinstance(file, io.BufferedReader) and isinstance(file.raw, _Expanding):
                    _refuse_expanded(path, number * ROW_BYTES)
                yield row
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}).") from None


def json_lines(path: Path, *, max_bytes: int, split: str | None = None) -> Iterator[Row]:
    """The non-blank lines of a file of JSON lines; a line over the limit is skipped while reading, not stored.

    Raises ValueError when the file does not exist.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path}. Give task.path a file of JSON lines.")
    with _opened(path) as file:
        yield from _lines(path, file, max_bytes, split)


def line_at(path: Path, start: int, *, max_bytes: int) -> Row:
    """The row whose line begins at this byte of a file of JSON lines. Raises ValueError when the file cannot be read."""
    with _opened(path) as file:
        file.seek(start)
        return Row(where=f"{path}, byte {start}", split=None, raw=file.readline(max_bytes + 1), start=start)


def parquet_rows(paths: Sequence[Path], *, max_bytes: int, named: bool = False) -> Iterator[Row]:
    """The rows of Parquet files; with `named`, the name of a file is the value of a column `split` that it does not have.

    Raises ValueError when pyarrow is not installed, or cannot read a file, or its rows expand beyond reason.
    """
    spent = Counter[Path]()
    for path, number, record, size in records(paths, max_bytes=max_bytes):
        spent[path] += size + ROW_BYTES
        _refuse_expanded(path, spent[path])
        split = _split_of_name(path.name) if named else None
        yield Row(where=f"{path}, row {number}", split=None, raw={"split": split, **record} if split and record else record)


def require_unique(path: Path, columns: Sequence[str]) -> None:
    """Raise ValueError for a table with two columns of one name, of which a record would hold one."""
    if refusal := repeated_column(columns):
        raise ValueError(f"{path} {refusal}")


class _Expanding(io.RawIOBase):
    """A gzip file that is refused where it expands beyond reason."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._inner = path, gzip.GzipFile(fileobj=file)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True: it is read from the beginning again."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position."""
        return self._inner.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; returns the number of bytes. Raises ValueError."""
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        _refuse_expanded(self._path, self._inner.tell())
        return len(data)


def _refuse_expanded(path: Path, size: int) -> None:
    """Raise ValueError where a compressed file has become more than its size explains."""
    if size > EXPANDED_BYTES and size > EXPANSION * path.stat().st_size:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes and expands to {size:,} or more, over {EXPANSION} times as many. "
            "If its rows are meant, write them as JSON lines that are not compressed."
        )


@contextmanager
def _opened(path: Path, *, gzipped: bool = False) -> Iterator[IO[bytes]]:
    """A regular file of any size, for rows are read one by one; decompressed if `gzipped`."""
    try:
        with opened(path, max_bytes=MOST_BYTES) as file:
            yield io.BufferedReader(_Expanding(path, file), CHUNK) if gzipped else file
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from None


def _refuse_other_encodings(path: Path, start: bytes) -> None:
    """Raise ValueError for UTF-16, whose text in ASCII has a zero in every second byte."""
    zeros = tuple(byte == 0 for byte in start)
    if start.startswith(UTF16) or zeros in ((False, True, False, True), (True, False, True, False)):
        raise ValueError(f"{path} is UTF-16. Save it as UTF-8, as in: iconv -f UTF-16 -t UTF-8.")


def _lines(path: Path, file: IO[bytes], max_bytes: int, split: str | None) -> Iterator[Row]:
    for number in count(1):
        start = file.tell()
        line = file.readline(max_bytes + 1)
        if not line:
            return
        fits = len(line) <= max_bytes or line.endswith(b"\n")
        while not line.endswith(b"\n") and (more := file.readline(max_bytes)):
            line = more
        if not fits or line.strip():
            yield Row(where=f"{path}, line {number}", split=split, raw=line if fits else None, start=start)


def _array(path: Path, file: IO[bytes], max_bytes: int, split: str | None) -> Iterator[Row]:
    """The elements of an array, each with the line on which it begins."""
    text = _Text(path, file, max_bytes)
    text.skip("[")
    while text.next() != "]":
        where = f"{path}, line {text.line}"
        value = text.element()
        yield Row(where=where, split=split, raw=value if isinstance(value, dict | bytes) else json.dumps(value).encode())
        if text.next() == ",":
            text.skip(",")
        elif text.next() != "]":
            raise ValueError(f"{path}, line {text.line}: a comma or ] must follow an element of the array.")
    text.skip("]")
    if text.next():
        raise ValueError(f"{path}, line {text.line}: something follows the end of the array.")


class _Text:
    """The unread text of a file, decoded in chunks."""

    def __init__(self, path: Path, file: IO[bytes], max_bytes: int) -> None:
        self.path, self.max_bytes, self.line = path, max_bytes, 1
        """`line` is the number of the line at which the unread text begins."""
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8")()
        self._held, self._at = "", 0
        self._decode = json.JSONDecoder(object_pairs_hook=_unique).raw_decode

    def next(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            rest = self._held[self._at :]
            if stripped := rest.lstrip(SPACE):
                self._advance(len(rest) - len(stripped))
                return stripped[0]
            self._advance(len(rest))
            if not self._more():
                return ""

    def skip(self, char: str) -> None:
        """Read `char`, which `next` returned."""
        assert self.next() == char
        self._advance(len(char))

    def element(self) -> object:
        """Read one value; one with a repeated key comes as its text in bytes, for `parsed` to refuse.

        Raises ValueError, with its line, for text that is no JSON and for a value over the limit."""
        where = f"{self.path}, line {self.line}: the element that begins here"
        while True:
            try:
                value, end = self._decode(self._held, self._at)
                if self._held[end : end + 1] or not self._more():  # "1" may be the beginning of "12".
                    self._advance(end - self._at)
                    return value
            except RecursionError:
                raise ValueError(f"{where} is nested too deeply.") from None
            except _RepeatedKeyError:
                begin, (_, end) = self._at, json.JSONDecoder().raw_decode(self._held, self._at)
                self._advance(end - begin)
                return self._held[begin:end].encode()
            except ValueError as error:
                if not self._more():
                    raise ValueError(f"{where} is not JSON ({error}).") from None
            if len(self._held) - self._at > self.max_bytes + CHUNK:
                raise ValueError(f"{where} is longer than task.max_bytes, or is not JSON.")

    def _advance(self, number: int) -> None:
        self.line += self._held.count("\n", self._at, self._at + number)
        self._at += number

    def _more(self) -> bool:
        data = self._file.read(CHUNK)
        try:
            chunk = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path} is not UTF-8 text ({error}).") from None
        self._held, self._at = self._held[self._at :] + chunk, 0
        return bool(data)


def _split_of_name(name: str) -> str | None:
    """The split that a shard names, as datasets writes it.

    >>> _split_of_name("test-00000-of-00001.parquet"), _split_of_name("rows.parquet")
    ('test', None)
    """
    prefix, dash, _ = name.partition("-")
    return prefix if dash and prefix in ("train", "validation", "test", "train_sft", "train_rl") else None
