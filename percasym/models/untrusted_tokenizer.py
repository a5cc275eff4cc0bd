"""Bounds on a tokenizer that somebody else wrote, checked before the library builds it.

A tokenizer.json is a program of normalizers, split patterns, a model and post-processors: a pattern can backtrack without end, a
normalizer can double its text at each of its steps, and a vocabulary can fill the memory. Both families have byte-level BPE, so only
the components of byte-level BPE are accepted, split patterns are known ones or match in linear time, and counts are bounded. What passed is
remembered by its content (`~/.cache/percasym/tokenizers`), because parsing a vocabulary of 150,000 tokens takes a second.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from re import _constants as opcodes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from percasym.config.escaping import short_name
from percasym.config.files import UnfitFileError, parsed_json, read_bytes

VERSION = "1"
"""Of these bounds: what passed earlier ones is checked again."""
FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")
"""All that a tokenizer is built of."""
CLASSES = (
    "Qwen2Tokenizer", "Qwen2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", "GemmaTokenizer", "GemmaTokenizerFast",
    "LlamaTokenizer", "LlamaTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast",
)  # fmt: skip
"""Classes of both families, of those that model=auto usually reads, and those under which transformers saves a tokenizer."""
MAX_BYTES = 2**26
"""Of each file: those of 250,000 tokens have 35 MB."""
MAX_VALUES = 2**22
"""Of a file: those of 250,000 tokens have 2.3 million, with their merges."""
MAX_ADDED = 2**14
"""Added tokens: released checkpoints have 30 to 6,000."""
MAX_ADDED_CHARACTERS = 256
MAX_STEPS = 16
"""Members of a sequence of components."""
MAX_GROWTH = 64
"""Times the length of a text that its normalization may have: NFKC alone makes 18 characters of one."""
MAX_PIECES = 64
"""Of the template of a post-processor."""
MAX_PATTERN = 1_000
"""Characters of a split pattern."""
MAX_WAYS = 4_096
"""Ways in which the bounded repeats of a linear pattern can match at one place."""
MAX_LENGTH = 2**20
"""Tokens of padding or truncation."""
GROWTH = {
    "NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Lowercase": 3, "Strip": 1, "StripAccents": 1, "Nmt": 1, "ByteLevel": 2, "Sequence": 1,
    "Prepend": 1, "Replace": 1, "BertNormalizer": 4,
}  # fmt: skip
"""Normalizers -> the most characters into which each turns one. `Precompiled` is none of them: its table may turn one into any number."""
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "normalizer": tuple(GROWTH),
    "pre_tokenizer": (
        "ByteLevel", "Split", "Sequence", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Metaspace",
        "CharDelimiterSplit",
    ),
    "post_processor": ("ByteLevel", "TemplateProcessing", "Sequence", "RobertaProcessing", "BertProcessing"),
    "decoder": ("ByteLevel", "ByteFallback", "Fuse", "Strip", "Replace", "Sequence", "Metaspace"),
}  # fmt: skip
"""Accepted types of each part."""
KNOWN_PATTERNS = frozenset((
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
))  # fmt: skip
"""Split patterns of GPT-2, of Qwen2 and Qwen3, and of Llama 3."""


def check_tokenizer(folder: Path) -> None:
    """Check what the tokenizer in a local checkpoint is built of. Raises ValueError with the file and what is wrong."""
    data = {name: read_bytes(folder / name, max_bytes=MAX_BYTES) for name in FILES if (folder / name).exists()}
    mark = _marks() / _digest(data)
    if mark.exists():
        return
    for name, content in data.items():  # Before any is parsed.
        marks = (b"\n",) if name == "merges.txt" else (b",", b":", b"[")
        if (number := sum(map(content.count, marks))) > MAX_VALUES:
            raise UnfitFileError(f"{folder / name} has about {number:,} values, and at most {MAX_VALUES:,} are read.")
    for name, content in data.items():
        if name == "merges.txt":
            continue
        where = str(folder / name)
        values = parsed_json(content, where)
        if not isinstance(values, dict):
            raise UnfitFileError(f"{where} is no JSON object.")
        if name == "tokenizer.json":
            check_components(values, where)
        elif name == "tokenizer_config.json":
            _check_settings(values, where)
        elif name == "added_tokens.json":
            _check_added(values, where)
    with suppress(OSError):  # A home that cannot be written: it is checked again the next time.
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def check_components(values: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for a parsed tokenizer.json with components that are not those of byte-level BPE, or beyond a bound."""
    model = values.get("model")
    if not isinstance(model, Mapping) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, Mapping) else model
        raise UnfitFileError(f"{where} has a model of type {kind!r:.80}, and BPE is read.")
    if model.get("dropout"):
        raise UnfitFileError(f"{where} sets dropout, so one text has other tokens each time. Take it out.")
    added = values.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, Mapping) for token in added):
        raise UnfitFileError(f"{where} has added_tokens that are no list of tokens.")
    _check_added([token.get("content") for token in added], where)
    for name in ("truncation", "padding"):
        _check_lengths(values.get(name), where, name)
    growth = 1.0
    for part in COMPONENTS:
        growth = max(growth, _check_part(values.get(part), part, where))
    if growth > MAX_GROWTH:
        raise UnfitFileError(f"{where} makes {growth:g} characters of one, and at most {MAX_GROWTH} are read.")


def check_split(pattern: object, where: str) -> None:
    """Raise ValueError for a pattern that is neither a text, nor known, nor certain to match in linear time."""
    if not isinstance(pattern, Mapping) or len(pattern) != 1 or not isinstance(next(iter(pattern.values())), str):
        raise UnfitFileError(f"{where} has a pattern that is none: {pattern!r:.80}.")
    ((kind, text),) = pattern.items()
    if kind == "String" or text in KNOWN_PATTERNS:
        return
    if kind != "Regex" or len(text) > MAX_PATTERN or not is_linear(text):
        raise UnfitFileError(f"{where} has a split pattern that is not known and could search without end: {text[:60]!r}.")


def is_linear(pattern: str) -> bool:
    r"""Whether a search for a pattern takes a time proportional to the text.

    True where each alternative has at most one repeat without an upper limit, as its last element, so that nothing after it can fail.

    >>> is_linear(r"\s?\p{L}+|\s+"), is_linear(r"(a+)+$"), is_linear(r"a+b")
    (True, False, False)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parsed = parser.parse(_plain(pattern))
    except (re.error, RecursionError, OverflowError, Warning):
        return False
    return _ways(parsed, last=True) <= MAX_WAYS


def _takes_something(pattern: Mapping[str, str]) -> bool:
    """Whether each match of a pattern that `check_split` accepted has a character.

    >>> _takes_something({"String": "a"}), _takes_something({"String": ""}), _takes_something({"Regex": "a?"})
    (True, False, False)
    """
    ((kind, text),) = pattern.items()
    return bool(text) if kind == "String" else parser.parse(_plain(text)).getwidth()[0] > 0


def _plain(pattern: str) -> str:
    """A pattern for Python, which has no classes of Unicode; their content does not matter here."""
    return re.sub(r"\\[pP]\{\^?\w+\}", lambda _: r"\w", pattern)


def _ways(parsed: Iterable[Any], *, last: bool) -> float:
    """Ways to match at one place; infinity where something can fail after a repeat without an upper limit."""
    total, items = 1.0, list(parsed)
    for number, (operation, given) in enumerate(items):
        ends = last and number == len(items) - 1
        if operation in (opcodes.MAX_REPEAT, opcodes.MIN_REPEAT, getattr(opcodes, "POSSESSIVE_REPEAT", None)):
            least, most, body = given
            inner = _ways(body, last=False)
            if most is opcodes.MAXREPEAT:
                if not ends or operation is opcodes.MIN_REPEAT or inner > 1 or least > MAX_PIECES:
                    return float("inf")
            elif most > MAX_PIECES or inner == float("inf"):
                return float("inf")
            else:
                total *= sum(inner**count for count in range(least, most + 1))
        elif operation is opcodes.BRANCH:
            total *= sum(_ways(branch, last=ends) for branch in given[1])
        elif operation is opcodes.SUBPATTERN:
            total *= _ways(given[-1], last=ends)
        elif operation not in (opcodes.LITERAL, opcodes.NOT_LITERAL, opcodes.ANY, opcodes.IN, opcodes.CATEGORY):
            return float("inf")  # References, lookarounds, positions.
        if total > MAX_WAYS:
            return float("inf")
    return total


def _check_part(part: object, kind: str, where: str) -> float:
    """Check one component; returns the most characters into which it turns one."""
    if part is None:
        return 1.0
    name = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or name not in COMPONENTS[kind]:
        accepted = ", ".join(COMPONENTS[kind])
        raise UnfitFileError(f"{where} has a {kind} of type {name!r:.80}, and those of byte-level BPE are read ({accepted}).")
    if name == "Sequence":
        members = next((part[key] for key in ("normalizers", "pretokenizers", "processors", "decoders") if key in part), None)
        if not isinstance(members, list) or len(members) > MAX_STEPS:
            raise UnfitFileError(f"{where} has a {kind} of more than {MAX_STEPS} steps, or of none.")
        growth = 1.0
        for member in members:
            growth *= _check_part(member, kind, where)
        return min(growth, 1e300)
    if name == "TemplateProcessing":
        _check_template(part, where)
    if name in ("Split", "Replace"):
        check_split(part.get("pattern"), where)
    if name == "Replace" and not _takes_something(part["pattern"]):  # The library then panics on some texts.
        raise UnfitFileError(f"{where} replaces a pattern that matches nothing at all, {part['pattern']!r:.80}. Take it out.")
    growth = float(GROWTH.get(str(name), 1))
    texts = [part.get(key) for key in ("content", "prepend", "replacement") if part.get(key) is not None]
    if any(not isinstance(text, str) or len(text) > MAX_ADDED_CHARACTERS for text in texts):
        raise UnfitFileError(f"{where} has a {name} whose text is none, or has more than {MAX_ADDED_CHARACTERS} characters.")
    return growth * max(1, *(len(str(text)) + 1 if name == "Prepend" else len(str(text)) for text in texts), 1)


def _check_template(part: Mapping[str, Any], where: str) -> None:
    special = part.get("special_tokens") or {}
    ids = [token.get("ids") for token in special.values() if isinstance(token, Mapping)] if isinstance(special, Mapping) else [None]
    lists = [part.get("single") or [], part.get("pair") or [], *ids]
    if not all(isinstance(each, list) for each in lists) or sum(map(len, lists)) > 4 * MAX_PIECES:
        raise UnfitFileError(f"{where} has a template of more than {MAX_PIECES} pieces, or of none.")
    for sequence in lists[:2]:
        if sum(isinstance(piece, Mapping) and "Sequence" in piece for piece in sequence) > 2:
            raise UnfitFileError(f"{where} has a template that repeats its text.")


def _check_settings(values: Mapping[str, Any], where: str) -> None:
    """tokenizer_config.json: a known class, no other files, and a bounded number of added tokens."""
    name = values.get("tokenizer_class")
    if name is not None and name not in CLASSES:
        raise UnfitFileError(f"{where} names the tokenizer class {name!r:.80}, and {', '.join(CLASSES)} are read.")
    for key, value in values.items():
        if key.endswith(("_file", "_files")) and value is not None:
            raise UnfitFileError(f"{where} names other files ({short_name(key)}={value!r:.80}), and those beside it are read. Take it out.")
    longest = values.get("model_max_length")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int | float) or not longest > 0):
        raise UnfitFileError(f"{where} sets model_max_length to {longest!r:.80}, and a number above 0 is read.")
    decoder = values.get("added_tokens_decoder") or {}
    tokens = list(decoder.values()) if isinstance(decoder, Mapping) else [None]
    _check_added([token.get("content") if isinstance(token, Mapping) else None for token in tokens], where)
    for key in ("extra_special_tokens", "additional_special_tokens", "model_specific_special_tokens"):
        named = values.get(key) or ()
        given = list(named.values()) if isinstance(named, Mapping) else named
        if not isinstance(given, list | tuple):
            raise UnfitFileError(f"{where} has {key} that are no list of tokens.")
        _check_added([token.get("content") if isinstance(token, Mapping) else token for token in given], where)


def _check_added(tokens: Iterable[object], where: str) -> None:
    added = list(tokens)
    for token in added:
        if not isinstance(token, str) or len(token) > MAX_ADDED_CHARACTERS:
            raise UnfitFileError(f"{where} adds a token that is no text of up to {MAX_ADDED_CHARACTERS} characters: {token!r:.80}.")
    if len(added) > MAX_ADDED:
        raise UnfitFileError(f"{where} adds {len(added):,} tokens, and at most {MAX_ADDED:,} are read.")


def _check_lengths(value: object, where: str, name: str) -> None:
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _check_lengths(inner, where, name)
    if isinstance(value, int | float) and not 0 <= value <= MAX_LENGTH:
        raise UnfitFileError(f"{where} sets {name} to {value!r:.40} tokens, and at most {MAX_LENGTH:,} are read.")


def _digest(data: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(VERSION.encode())
    for name, content in data.items():
        digest.update(f"\n{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _marks() -> Path:
    """The folder with an empty file for each tokenizer that passed."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "percasym" / "tokenizers"
