"""Keep secrets out of everything that is written: files of a run, what a tracker is sent, logs, the terminal.

A secret is the value of an environment variable whose name says so (WANDB_API_KEY, HF_TOKEN), the value of an option whose name says so,
and the password in an address. Values that a configuration takes from the environment (`${oc.env:NAME}`) are recorded by their names.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

WORDS = frozenset(
    ("apikey", "auth", "credential", "credentials", "key", "keys", "passphrase", "passwd", "password", "secret", "secrets", "token")
)
"""Of a name that is a secret's; `tokens` are what a model reads."""
MIN_LENGTH = 8
"""Of a value that is searched for: shorter ones stand in ordinary text."""
ENVIRONMENT = re.compile(r"oc\.env\s*:\s*([^,}]*)")
"""A variable that an interpolation of OmegaConf names."""
_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]*@", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_PATH = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
MAX_HOPS = 10
"""Of an interpolation that names another one."""


def is_secret(name: str) -> bool:
    """Whether a variable is a secret by its name.

    >>> is_secret("WANDB_API_KEY"), is_secret("hfToken"), is_secret("TOKENIZERS_PARALLELISM")
    (True, True, False)
    """
    return not WORDS.isdisjoint(word.lower() for word in _WORD.findall(name))


def is_secret_option(key: str) -> bool:
    """Whether an option holds a secret by the last word of its name.

    >>> is_secret_option("tracker.api_key"), is_secret_option("paradigm.token_weight"), is_secret_option("evaluation.max_new_tokens")
    (True, False, False)
    """
    words = _WORD.findall(key.rpartition(".")[2])
    return bool(words) and words[-1].lower() in WORDS


@contextmanager
def redacted_output() -> Iterator[None]:
    """Redact all that this process prints until the end of the block: results, refusals, warnings, logs, tracebacks.

    The one place for the terminal: every command begins with it. Not covered is what a library in C or another process writes to the
    terminal by itself.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_RedactedStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def redact_tracebacks() -> None:
    """Redact the traceback of an exception that ends this process, or one of its threads: it is printed after the last block ended.

    Every program calls it once; a second call does nothing.
    """
    if getattr(sys.excepthook, "redacts", False):
        return
    plain, of_thread = sys.excepthook, threading.excepthook

    def hook(*error: Any) -> None:
        with redacted_output():
            plain(*error)

    def thread_hook(error: Any) -> None:
        with redacted_output():
            of_thread(error)

    hook.redacts = True  # type: ignore[attr-defined]
    sys.excepthook, threading.excepthook = hook, thread_hook


class _RedactedStream:
    """A text stream that passes on what is written, redacted; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._secrets = stream, _secrets(os.environ)

    def write(self, text: str) -> int:
        """Write `text` without secrets. Returns its length."""
        self._stream.write(_without(text, self._secrets))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line."""
        for text in lines:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` with the name of its variable in place of each secret, and without passwords in addresses.

    >>> redacted("key abcdefgh at https://me:pass@host/x", {"API_KEY": "abcdefgh"})
    'key [API_KEY] at https://[redacted]@host/x'
    """
    return _without(text, _secrets(os.environ if environment is None else environment))


def redacted_words(words: Iterable[str]) -> list[str]:
    """Command-line words without secrets.

    >>> redacted_words(["train.py", "++tracker.api_key=abc", "paradigm.steps=3"])
    ['train.py', '++tracker.api_key=[redacted]', 'paradigm.steps=3']
    """
    pairs = ((word, *word.partition("=")) for word in words)
    return [f"{key}=[redacted]" if value and is_secret_option(key.lstrip("+~-")) else redacted(word) for word, key, _, value in pairs]


def redacted_values(value: Any) -> Any:
    """Plain data without secrets, in its texts and under names of secrets."""
    if isinstance(value, Mapping):
        return {
            key: "[redacted]" if item and isinstance(item, str) and is_secret_option(str(key)) else redacted_values(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted_values(item) for item in value]
    return redacted(value) if isinstance(value, str) else value


def unresolved(record: Any, raw: Any, whole: Any = None) -> Any:
    """`record` (resolved) with the text of `raw` (not resolved) in place of each value that comes from the environment.

    An interpolation of another option is followed to the variable that it ends at.

    >>> unresolved({"a": "/home/me/x", "b": 1}, {"a": "${oc.env:HOME}/x", "b": 1})
    {'a': '${oc.env:HOME}/x', 'b': 1}
    """
    whole = raw if whole is None else whole
    if isinstance(record, Mapping):
        held = raw if isinstance(raw, Mapping) else {}
        return {key: unresolved(value, held.get(key), whole) for key, value in record.items()}
    if isinstance(record, list):
        items = raw if isinstance(raw, list) and len(raw) == len(record) else [None] * len(record)
        return [unresolved(value, item, whole) for value, item in zip(record, items, strict=True)]
    if isinstance(raw, str) and "${" in raw:
        for _ in range(MAX_HOPS):
            if ENVIRONMENT.search(raw):
                return raw
            followed = _PATH.sub(lambda found: _text_at(whole, found[1], found[0]), raw)
            if followed == raw:
                break
            raw = followed
    return record


def named_variables(tree: Any) -> Iterator[str]:
    """The environment variables that the texts of plain data name."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from named_variables(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from named_variables(value)
    elif isinstance(tree, str):
        yield from (found.strip() for found in ENVIRONMENT.findall(tree))


def _secrets(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Value and name of each secret, the longest value first: one may begin with another."""
    found = {value: name for name, value in environment.items() if len(value) >= MIN_LENGTH and is_secret(name)}
    return sorted(found.items(), key=lambda pair: len(pair[0]), reverse=True)


def _without(text: str, secrets: Iterable[tuple[str, str]]) -> str:
    for value, name in secrets:
        text = text.replace(value, f"[{name}]")
    return _ADDRESS.sub(r"\1[redacted]@", text) if "://" in text else text


def _text_at(tree: Any, path: str, otherwise: str) -> str:
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, str) else otherwise
