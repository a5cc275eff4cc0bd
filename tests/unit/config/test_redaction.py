"""Secrets are written nowhere; what comes from the environment is recorded by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from percasym.config.redaction import is_secret, redacted, redacted_values, redacted_words
from percasym.config.resolve import composed, rebuild
from percasym.config.schema import ConfigError

CONF = Path(__file__).resolve().parents[3] / "conf"
SECRET = "sk-0123456789abcdef"


def test_names_of_secrets() -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "githubToken", "apikey"):
        assert is_secret(name), name
    for name in ("HOME", "TOKENIZERS_PARALLELISM", "KEYBOARD", "PATH", "MONKEY"):
        assert not is_secret(name), name


def test_a_longer_secret_goes_before_one_that_it_begins_with() -> None:
    assert redacted(f"{SECRET}-and-more {SECRET}", {"A_KEY": SECRET, "B_KEY": f"{SECRET}-and-more"}) == "[B_KEY] [A_KEY]"
    assert redacted("a short one", {"A_KEY": "short"}) == "a short one", "it would take words out of every text"


def test_words_and_values_under_the_names_of_secrets_go() -> None:
    assert redacted_words(["++a.password=x", "--token=y", "a.b=1"]) == ["++a.password=[redacted]", "--token=[redacted]", "a.b=1"]
    assert redacted_values({"api_key": "x", "key": {"task": "t"}, "more": ["https://u:p@h/"]}) == {
        "api_key": "[redacted]", "key": {"task": "t"}, "more": ["https://[redacted]@h/"],
    }  # fmt: skip


def test_a_variable_is_recorded_by_its_name_and_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_STUDY", "mine")
    monkeypatch.setenv("MY_STEPS", "7")
    words = ["scale=smoke", "study=${oc.env:MY_STUDY}", "paradigm.steps='${oc.decode:${oc.env:MY_STEPS}}'"]
    settings = composed(words, CONF)
    assert settings.study == "mine"
    assert settings.paradigm.steps == 7
    assert settings.record["study"] == "${oc.env:MY_STUDY}"
    assert settings.record["paradigm"]["steps"] == "${oc.decode:${oc.env:MY_STEPS}}"
    again = rebuild(settings.record, path=settings.path)
    assert again == settings
    monkeypatch.delenv("MY_STEPS")
    with pytest.raises(ConfigError, match="MY_STEPS"):
        rebuild(settings.record, path=settings.path)


def test_a_record_of_a_stranger_reads_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    record = composed(["scale=smoke"], CONF).record
    with pytest.raises(ConfigError, match="asks for the environment variable HF_TOKEN, a secret by its name"):
        rebuild({**record, "model": {**record["model"], "path": "me/${oc.env:HF_TOKEN}"}}, path=Path("run"), plugins=())
