"""The targets of test_strangers.py on cases of a plain random generator: many times as fast as Hypothesis, without its shrinking.

    python -m tests.fuzz.fast 100000 yaml checkpoints
    python -m tests.fuzz.fast 100000 --start 40000 runs       # cases 40,000 to 99,999

A case is a function of its target and its number, so a range of them can be run again, and a run that was interrupted goes on where the
last line says. Each target prints its number of cases and seconds of processor time; a failure prints the case and its number. A case that
failed is kept as an @example of the target in test_strangers.py. Files lie in memory where the machine has /dev/shm, for a run's record is
written through to the disk in each case.
"""

from __future__ import annotations

import argparse
import base64
import copy
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from tests.fuzz import test_strangers as targets

SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"), "", "x", "\0",
    "\x1b[2J", "../x", "/dev/zero", "=1+1", "é" * 9, "\ud800", [], {}, [[]], {"a": {}},
)  # fmt: skip
WIDE, EVERY = [0] * 30_000, 500
"""A list that costs many cases' time, in one value of so many."""
KEYS = ("x", "", "type", "_target_", "\x1b", "a\nb", "k" * 2000, "x_file", "vocab_size")
TEXTS = (
    "", "a", "[", "]", "{", "}", ": ", "- ", "&a ", "*a", "!!python/object:os.system ", "\n", "  ", "\t", "\"", "'", "|", ">", "9" * 5000,
    "\ufeff",
)  # fmt: skip
PATHS = (
    "images/7.png", "../x", "/etc/passwd", "/dev/zero", "~", "~nouser/x", "file:///dev/zero", "file://evil/x", "http://evil/x", "data:,x",
    "C:\\x", "\\\\x", "a/../../b", ".", "", "iVBORw0KGgo=", "x" * 5000,
)  # fmt: skip


DTYPES = ("I64", "I32", "U8", "BOOL", "F64", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "C64", "U64", "x")
PROGRESS = 10_000
"""Cases between two lines."""


def pictures() -> list[bytes]:
    """A picture of each format that is read."""
    found = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
        Image.linear_gradient("L").resize((8, 8)).save(file := io.BytesIO(), kind)
        found.append(file.getvalue())
    return found


def damaged(random: Random, originals: Sequence[bytes]) -> bytes:
    """One of these with up to six places flipped, cut, doubled or filled."""
    data = bytearray(random.choice(originals))
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(data) + 1)
        match random.randrange(5):
            case 0 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 1:
                del data[at : at + random.randrange(9)]
            case 2:
                data[at:at] = data[at : at + random.randrange(40)] * random.randrange(1, 4)
            case 3:
                data[at:at] = random.choice(TEXTS).encode("utf-8", "surrogatepass")
            case _:
                data[at:at] = random.randbytes(random.randrange(5))
    return bytes(data)


def value(random: Random) -> Any:
    """A value of another kind."""
    return WIDE if random.randrange(EVERY) == 0 else copy.deepcopy(random.choice(SCALARS))


def slots(held: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in a record with the key of one of its values; of a list, the first few."""
    for key, inner in held.items() if isinstance(held, dict) else enumerate(held[:8]) if isinstance(held, list) else ():
        yield held, key
        yield from slots(inner)


def altered(random: Random, original: Any) -> Any:
    """The record with up to three of its values replaced, left out, exchanged or added."""
    record = copy.deepcopy(original)
    for _ in range(random.randint(1, 3)):
        found = list(slots(record))
        if not found:
            return record
        inside, last = random.choice(found)
        match random.randrange(4):
            case 0:
                del inside[last]
            case 1 if isinstance(inside, dict):
                inside[random.choice(KEYS)] = value(random)
            case 2:
                inside[last] = {"x": inside[last]} if random.random() < 0.5 else [inside[last]] * random.choice((1, 2, 100))
            case _:
                inside[last] = value(random)
    return record


def dump(random: Random) -> bytes:
    """The batches of a step with damaged bytes, or with another header."""
    if random.random() < 0.5:
        return damaged(random, [targets.DUMP])
    size = int.from_bytes(targets.DUMP[:8], "little")
    header = json.loads(targets.DUMP[8 : 8 + size])
    for about in random.sample(list(header.values()), random.randrange(4)):
        match random.randrange(4):
            case 0:
                about["dtype"] = random.choice(DTYPES)
            case 1:
                about["shape"] = [random.choice((0, 1, 2, 3, 6, 2**31, 2**63, -1)) for _ in range(random.randrange(4))]
            case 2:
                about["data_offsets"] = [random.choice((0, 8, 48, 96, 2**40, -8)) for _ in range(random.choice((2, 2, 2, 1, 3)))]
            case _:
                about.update(copy.deepcopy(random.choice(list(header.values()))))
    written = json.dumps(altered(random, header) if random.random() < 0.5 else header).encode()
    return len(written).to_bytes(8, "little") + written + targets.DUMP[8 + size :]


def record(random: Random) -> tuple[Any, Any]:
    """The record of a run and its configuration, one of them altered or both: with both, few runs are found."""
    which = random.randrange(3)
    settings = {"seed": 0, "paradigm": {"steps": 4}}
    return altered(random, targets.META) if which != 1 else targets.META, altered(random, settings) if which else settings


def text(random: Random, alphabet: str, longest: int) -> str:
    """A text of these characters."""
    return "".join(random.choices(alphabet, k=random.randrange(longest)))


def inner(name: str) -> Callable[..., None]:
    """The function under Hypothesis' decorators."""
    return getattr(targets, name).hypothesis.inner_test


def of(folder: Path) -> dict[str, Callable[[Random], None]]:
    """The targets; each runs one case."""
    known = pictures()
    picture = [{"bytes": None, "path": "images/7.png"}, {"url": "file:///x.png"}]
    signs = "ab.*+?()|[]{}\\d1,^$ps"
    return {
        "yaml": lambda r: inner("test_yaml_of_others")(damaged(r, targets.YAML)),
        "json": lambda r: inner("test_json_of_others")(damaged(r, [json.dumps(targets.CONFIG).encode()])),
        "checkpoints": lambda r: inner("test_configurations_of_checkpoints")(
            folder, altered(r, targets.CONFIG), altered(r, targets.ADAPTER)
        ),
        "runs": lambda r: inner("test_a_run_of_others_is_found_or_refused_and_deletes_nothing_outside")(folder, *record(r)),
        "dumps": lambda r: inner("test_batches_of_a_step_are_whole_or_refused")(folder, dump(r)),
        "pictures": lambda r: inner("test_a_picture_of_others_is_read_or_refused")(
            folder,
            r.choice(
                (
                    r.choice(PATHS),
                    damaged(r, [b"iVBORw0KGgo="]).decode("latin-1"),
                    altered(r, r.choice(picture)),
                    base64.b64encode(damaged(r, known)).decode(),
                )
            ),
        ),
        "paths": lambda r: inner("test_a_path_of_others_is_inside_or_unread")(folder, "/".join(r.choices(PATHS, k=r.randint(1, 3)))),
        "patterns": lambda r: inner("test_a_pattern_that_is_allowed_ends")(text(r, signs, 30)),
        "splits": lambda r: inner("test_a_split_pattern_that_is_linear_splits_in_time")(text(r, signs, 20)),
        "tokenizers": lambda r: inner("test_a_tokenizer_that_is_accepted_is_built_and_encodes")(
            altered(r, targets.TOKENIZER), text(r, "ab é\n", 50)
        ),
        "texts": lambda r: inner("test_texts_of_others_are_escaped")(damaged(r, [b"a|b <x> [y](z) =1 \x1b[2J"]).decode("utf-8", "replace")),
    }


def main(number: int, names: Sequence[str], start: int = 0) -> int:
    """Run the cases from `start` to `number` of each target; returns 1 where one failed."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        known = of(Path(place))
        for name in names or known:
            began, case = time.process_time(), start
            try:
                for case in range(start, number):
                    known[name](Random(f"{name} {case}"))
                    if (case + 1) % PROGRESS == 0:
                        print(f"{name}: cases {start:,} to {case:,} in {time.process_time() - began:.1f} s", flush=True)
            except Exception as error:  # Whatever is not a refusal is a finding.
                print(f"{name}: case {case} failed: {type(error).__name__}: {error}", flush=True)
                return 1
            spent = time.process_time() - began
            print(f"{name}: {number - start:,} cases in {spent:.1f} s, {(number - start) / max(spent, 1e-9):,.0f} a second", flush=True)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the targets of test_strangers.py on cases of a plain random generator.")
    parser.add_argument("number", type=int, help="cases of each target")
    parser.add_argument("names", nargs="*", help="targets; all of them where none is named")
    parser.add_argument("--start", type=int, default=0, help="the first case")
    words = parser.parse_intermixed_args()
    sys.exit(main(words.number, words.names, words.start))
