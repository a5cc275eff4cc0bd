"""Tokenizers that somebody else wrote: what could search, grow or fill the memory without end is refused before it is built."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from percasym.models import checkpoint, untrusted_tokenizer
from percasym.models.locate import CheckpointError, packaged
from percasym.models.untrusted_tokenizer import KNOWN_PATTERNS, check_components, check_tokenizer, is_linear

BOMB = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
SEARCH = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
BIG = {"type": "Split", "pattern": {"Regex": "((a{1000}){1000}){1000}"}, "behavior": "Isolated", "invert": False}
LOOP = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 200, "pair": [], "special_tokens": {}}


def sequence(part: str, *members: Any) -> dict[str, Any]:
    return {"type": "Sequence", {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}[part]: list(members)}


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the packaged tiny checkpoint; nothing is remembered of earlier ones."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(packaged("qwen3vl"), tmp_path / "copy")
    return tmp_path / "copy"


def change(file: Path, alter: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(file.read_text())
    alter(values)
    file.write_text(json.dumps(values))


BOMBS: dict[str, tuple[str, Callable[[dict[str, Any]], Any], str]] = {
    "doubles 40 times": (
        "tokenizer.json", lambda it: it.update(normalizer=sequence("normalizer", *[BOMB] * 15)), "characters of one, and at most 64",
    ),
    "many steps": ("tokenizer.json", lambda it: it.update(normalizer=sequence("normalizer", *[BOMB] * 40)), "of more than 16 steps"),
    "a long replacement": ("tokenizer.json", lambda it: it.update(normalizer={**BOMB, "content": "a" * 10**6}), "has a Replace whose text"),
    "a table of characters": ("tokenizer.json", lambda it: it.update(normalizer={"type": "Precompiled"}), "has a normalizer of type 'Prec"),
    "a search without end": ("tokenizer.json", lambda it: it.update(pre_tokenizer=SEARCH), "has a split pattern that is not known"),
    "a pattern that expands": ("tokenizer.json", lambda it: it.update(pre_tokenizer=sequence("pre_tokenizer", BIG)), "has a split pattern"),
    "a replaced pattern": (
        "tokenizer.json", lambda it: it.update(decoder={"type": "Replace", "pattern": {"Regex": ".*.*x"}, "content": ""}), "split pattern",
    ),
    "nothing replaced": ("tokenizer.json", lambda it: it.update(normalizer={**BOMB, "pattern": {"String": ""}}), "matches nothing at all"),
    "perhaps nothing replaced": (
        "tokenizer.json", lambda it: it.update(normalizer={**BOMB, "pattern": {"Regex": "a?"}}), "matches nothing at all, {'Regex': 'a?'}",
    ),
    "a template that repeats": ("tokenizer.json", lambda it: it.update(post_processor=LOOP), "has a template that repeats its text"),
    "padding to a billion": (
        "tokenizer.json", lambda it: it.update(padding={"strategy": {"Fixed": 10**9}, "pad_id": 0}), "sets padding to 1000000000 tokens",
    ),
    "another model": ("tokenizer.json", lambda it: it["model"].update(type="Unigram"), "has a model of type 'Unigram', and BPE is read"),
    "chance": ("tokenizer.json", lambda it: it["model"].update(dropout=0.5), "sets dropout, so one text has other tokens each time"),
    "added tokens": (
        "tokenizer.json", lambda it: it.update(added_tokens=[{"content": f"<{n}>", "id": n} for n in range(20_000)]), "adds 20,000 tokens",
    ),
    "added tokens of the settings": (
        "tokenizer_config.json", lambda it: it.update(extra_special_tokens=[str(n) for n in range(20_000)]), "has 20,000 items under",
    ),
    "nesting": ("tokenizer.json", lambda it: it.update(x=json.loads("[" * 100 + "]" * 100)), "nested more than 64 deep"),
    "another class": (
        "tokenizer_config.json", lambda it: it.update(tokenizer_class="T5Tokenizer"), "names the tokenizer class 'T5Tokenizer', and Qwen2",
    ),
    "a length that is none": ("tokenizer_config.json", lambda it: it.update(model_max_length="x"), "sets model_max_length to 'x'"),
    "other files": (
        "tokenizer_config.json", lambda it: it.update(fast_tokenizer_files=["../x.json"]), "names other files (fast_tokenizer_files=['../x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_built(copy: Path, name: str) -> None:
    import transformers  # noqa: F401, takes seconds

    file, alter, reason = BOMBS[name]
    change(copy / file, alter)
    began = time.process_time()
    with pytest.raises(CheckpointError, match=re.escape(reason)) as refused:
        checkpoint.tokenizer(str(copy))
    assert time.process_time() - began < 10
    said = str(refused.value)
    assert said.startswith(str(copy / file)) and said.endswith(" Check model.path.") and len(said) < 600


def test_a_vocabulary_beyond_reason_is_counted_and_not_parsed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted_tokenizer, "parsed_json", lambda text, where: pytest.fail("it was parsed"))
    (copy / "tokenizer.json").write_bytes(b'{"model": {"type": "BPE", "vocab": {' + b'"a":1,' * 3_000_000)
    with pytest.raises(ValueError, match=r"has about 6,000,004 values, and at most 4,194,304 are read"):
        check_tokenizer(copy)
    (copy / "tokenizer.json").unlink()
    (copy / "merges.txt").write_bytes(b"a b\n" * 5_000_000)
    with pytest.raises(ValueError, match=r"merges.txt has about 5,000,000 values"):
        check_tokenizer(copy)


def test_known_tokenizers_pass_and_are_remembered_by_their_content(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    real = untrusted_tokenizer.parsed_json
    monkeypatch.setattr(untrusted_tokenizer, "parsed_json", lambda text, where: parsed.append(where) or real(text, where))
    for _ in range(2):
        check_tokenizer(copy)
        check_tokenizer(Path(packaged("internvl35")))
    assert len(parsed) == 4, "two files of each, once"
    change(copy / "tokenizer.json", lambda it: it.update(pre_tokenizer=SEARCH))
    with pytest.raises(ValueError, match="split pattern"):
        check_tokenizer(copy)


def test_the_packaged_tokenizer_is_not_checked_at_each_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "check_tokenizer", lambda folder: pytest.fail("it was checked"))
    checkpoint.tokenizer.cache_clear()
    assert checkpoint.tokenizer(packaged("qwen3vl")).eos_token == "<|im_end|>"


def test_what_a_folder_that_cannot_be_written_costs_is_time_only(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    check_tokenizer(copy)


@pytest.mark.parametrize("pattern", sorted(KNOWN_PATTERNS))
def test_split_patterns_of_released_tokenizers_are_accepted(pattern: str) -> None:
    parts = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    check_components({"model": {"type": "BPE"}, "pre_tokenizer": sequence("pre_tokenizer", parts), "normalizer": {"type": "NFC"}}, "f")


def test_a_linear_pattern_has_nothing_after_a_repeat_without_a_limit() -> None:
    for pattern in (r"\s?\p{L}+|\s?\p{N}{1,2}|\s?[^\s\p{L}\p{N}]+|\s+", r"\p{N}{1,3}", r"[\r\n]", r"(?i:'s|'t)|\w+"):
        assert is_linear(pattern), pattern
    for pattern in (
        "(a+)+", "a+b", r"\s+$", r"\s+(?!\S)", "a+?", "(a|aa)+", r"(a)\1", "(a{0,60}){0,60}", "a{0,60}a{0,60}a{0,60}", "a{1000}",
        "(?:a+|b)c", "(",
    ):  # fmt: skip
        assert not is_linear(pattern), pattern


def test_linear_patterns_take_time_in_proportion(tmp_path: Path) -> None:
    """The worst texts for what is accepted: the library needs less than a second for each."""
    from tokenizers import Regex, pre_tokenizers

    for pattern, text in (
        (r"\s?\p{L}+|\s?\p{N}{1,2}", " " * 200_000),
        ("a{0,60}a{0,60}b|c+", "a" * 200_000),
        ("[ab]{0,60}c|d+", "ab" * 100_000),
    ):
        assert is_linear(pattern)
        began = time.monotonic()
        pre_tokenizers.Split(Regex(pattern), behavior="isolated").pre_tokenize_str(text)
        assert time.monotonic() - began < 60


DAMAGED: dict[str, tuple[str, Any, str]] = {
    "a list": ("tokenizer.json", [], "is no JSON object."),
    "an id for a token": ("added_tokens.json", {"x" * 300: 7}, "adds a token that is no text of up to 256 characters: 'xxx"),
    "added tokens that are a number": ("tokenizer.json", {"model": {"type": "BPE"}, "added_tokens": 3}, "added_tokens that are no list of"),
    "an added token that is none": ("tokenizer.json", {"model": {"type": "BPE"}, "added_tokens": [3]}, "added_tokens that are no list of"),
    "a number for a token": (
        "tokenizer.json", {"model": {"type": "BPE"}, "added_tokens": [{"content": 3}]}, "adds a token that is no text of up to 256 char",
    ),
    "a pattern that is none": (
        "tokenizer.json", {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Split", "pattern": 3}}, "has a pattern that is none: 3.",
    ),
    "a template that is none": (
        "tokenizer.json", {"model": {"type": "BPE"}, "post_processor": {"type": "TemplateProcessing", "single": 3}},
        "has a template of more than 64 pieces, or of none.",
    ),
    "no model": ("tokenizer.json", {"model": "BPE"}, "has a model of type 'BPE', and BPE is read."),
    "special tokens that are none": ("tokenizer_config.json", {"extra_special_tokens": 3}, "extra_special_tokens that are no list of"),
    "long special tokens": (
        "tokenizer_config.json", {"extra_special_tokens": {"image": "x" * 300}}, "adds a token that is no text of up to 256 characters",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_files_of_another_form_are_refused(copy: Path, what: str) -> None:
    name, values, reason = DAMAGED[what]
    (copy / name).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=re.escape(reason)) as refused:
        check_tokenizer(copy)
    assert str(refused.value).startswith(str(copy / name))


def test_a_tokenizer_that_passed_is_not_read_again_and_too_many_values_are_not_parsed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_tokenizer(copy)
    monkeypatch.setattr(untrusted_tokenizer, "parsed_json", lambda *_: pytest.fail("it was parsed"))
    check_tokenizer(copy)
    (copy / "merges.txt").write_bytes(b"a b\n" * 9)
    monkeypatch.setattr(untrusted_tokenizer, "MAX_VALUES", 8)
    with pytest.raises(ValueError, match=r"has about [\d,]+ values, and at most 8 are read\."):
        check_tokenizer(copy)


def test_a_home_that_cannot_be_written_changes_nothing(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    check_tokenizer(copy)
    (copy / "tokenizer.json").write_text("[]")
    with pytest.raises(ValueError, match="is no JSON object"):
        check_tokenizer(copy)
