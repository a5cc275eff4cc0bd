"""Read the rows of Parquet files in a child process with a limit of memory.

A kilobyte of Parquet can hold a row of gigabytes: a value is stored once and repeated (dictionary, run lengths, shared prefixes), pages
are compressed, and what the metadata says of their sizes is not checked. Arrow decodes whole batches, so no bound can be put on a row
before it is in memory. The child may allocate MEMORY_BYTES and passes on rows of up to `max_bytes`.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import resource
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from percasym.config.escaping import shortened

MEMORY_BYTES = 2**32
"""What reading may allocate beyond what the imports did (our choice): a batch of rows, and pages of some hundred megabytes."""
SECONDS = 300.0
"""Until the next row, on a busy machine, the import of pyarrow included."""
BATCH = 16
"""Rows that are decoded at once; they may hold their pictures."""
SPARE_BYTES = 2**16
"""Of a message beyond its row."""


def records(paths: Sequence[Path], *, max_bytes: int) -> Iterator[tuple[Path, int, dict[str, Any] | None, int]]:
    """File, number from 1, columns and bytes of each row; None in place of columns that have more than `max_bytes`.

    Columns hold texts, bytes, numbers, lists and mappings; a value of another type is its text.

    Raises ValueError when pyarrow is not installed, or a file cannot be read, or not within the limits.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(f"{paths[0]} is a Parquet file, and that needs the package pyarrow: pip install 'percasym[parquet]'.")
    command = [sys.executable, "-m", "percasym.tasks.given.parquet", str(MEMORY_BYTES), str(max_bytes)]
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # Others reserve addresses ahead, which the limit counts.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    assert child.stdin is not None and child.stdout is not None
    path, number = paths[0], 0
    try:
        with suppress(OSError):
            child.stdin.write(json.dumps([str(path.absolute()) for path in paths]).encode())
            child.stdin.close()
        while (message := _message(child.stdout.fileno(), max_bytes + SPARE_BYTES)) is not None:
            file, number, record, size = message
            path = paths[file]
            if isinstance(record, str):
                raise ValueError(f"{path} {record}")
            yield path, number, record, size
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error) if isinstance(error, TimeoutError) else f"its rows take more than {MEMORY_BYTES:,} bytes to decode"
        raise ValueError(f"{path} cannot be read as Parquet after row {number} ({reason}).") from None
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def repeated_column(columns: Sequence[str]) -> str | None:
    """What is wrong with a table that has two columns of one name, of which a record would hold one; None for another.

    >>> repeated_column(["question", "image", "question"])
    "has more than one column 'question'. Leave one."
    """
    repeated = [name for name, number in Counter(columns).items() if number > 1]
    return f"has more than one column {repeated[0]!r:.60}. Leave one." if repeated else None


class _Plain(pickle.Unpickler):
    """Values without classes."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse to import anything."""
        raise pickle.UnpicklingError(f"{module}.{name}")


def _message(descriptor: int, longest: int) -> Any:
    """The next message of the child. Raises EOFError, TimeoutError, UnpicklingError."""
    size = int.from_bytes(_exactly(descriptor, 8), "little")
    if size > longest:
        raise EOFError
    return _Plain(io.BytesIO(_exactly(descriptor, size))).load()


def _exactly(descriptor: int, size: int) -> bytes:
    data, deadline = bytearray(), time.monotonic() + SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while len(data) < size:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"a row takes longer than {SECONDS:g} seconds")
            if not (chunk := os.read(descriptor, min(size - len(data), 2**20))):
                raise EOFError
            data += chunk
    return bytes(data)


def main(memory_bytes: int, max_bytes: int) -> None:
    """Write the rows of the files named on stdin to stdout, each pickled after its length; None is the last message."""
    import pyarrow
    from pyarrow import parquet

    paths = json.load(sys.stdin)
    pyarrow.set_cpu_count(1)  # Threads reserve addresses, too.
    pyarrow.set_io_thread_count(1)
    if (pages := Path("/proc/self/statm")).exists():  # macOS has none, and does not keep the limit either.
        used = int(pages.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    for file, path in enumerate(paths):
        number = 0
        try:
            with parquet.ParquetFile(path, buffer_size=2**20) as rows:  # With a buffer, a column is not read as a whole.
                if refusal := repeated_column(rows.schema_arrow.names):
                    _write((file, number, refusal, 0))
                    continue
                for batch in rows.iter_batches(batch_size=BATCH, use_threads=False):
                    for place in range(len(batch)):
                        record = _plain(batch.slice(place, 1).to_pylist()[0])
                        size = len(pickle.dumps(record, protocol=5))
                        number += 1
                        _write((file, number, record if size <= max_bytes else None, size))
        except MemoryError:  # Arrow's own is one, too.
            _write((file, number, f"cannot be read as Parquet: after row {number}, decoding takes more than {memory_bytes:,} bytes.", 0))
        except (pyarrow.ArrowException, OSError, ValueError) as error:  # A text that is not UTF-8 is a ValueError.
            _write((file, number, f"cannot be read as Parquet ({shortened(error)}).", 0))
    _write(None)


def _write(message: object) -> None:
    data = pickle.dumps(message, protocol=5)
    out = cast(IO[bytes], sys.stdout.buffer)
    out.write(len(data).to_bytes(8, "little"))
    out.write(data)
    out.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | bytes | int | float) else str(value)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
