"""Secrets are written nowhere; what comes from the environment is recorded by its name."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from percasym.config.redaction import (
    is_secret,
    named_variables,
    redact_tracebacks,
    redacted,
    redacted_output,
    redacted_values,
    redacted_words,
    unresolved,
)
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


def test_nothing_that_is_printed_holds_a_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from percasym.runs.console import PlainConsole

    monkeypatch.setenv("HF_TOKEN", SECRET)
    with redacted_output():
        print("printed", SECRET)
        print("refused", SECRET, file=sys.stderr)
        sys.stdout.writelines(["written ", SECRET, "\n"])
        PlainConsole().print(f"drawn {SECRET}", soft_wrap=True)
        handler = logging.StreamHandler(sys.stderr)
        handler.emit(logging.makeLogRecord({"msg": f"logged {SECRET}"}))
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning(UserWarning(f"warned {SECRET}"), UserWarning, "f", 1)
        assert sys.stdout.isatty() is False, "all else is the stream's own"
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    for word, text in (("printed", shown.out), ("written", shown.out), ("drawn", shown.out), ("refused", shown.err), ("logged", shown.err)):
        assert f"{word} [HF_TOKEN]" in text
    print(SECRET)
    assert SECRET in capsys.readouterr().out, "the streams are as before"


def test_a_refusal_of_a_command_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from percasym.cli import main as cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert cli.main(["report", SECRET]) == 2
    assert cli.main(["plan", f"model.path={SECRET}"]) == 2
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    assert shown.err.count("[HF_TOKEN]") >= 2


def test_every_program_redacts_its_tracebacks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from percasym.cli import main as cli
    from percasym.launch import main as launch

    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # So that what the command sets is undone.
    for program in (lambda: cli.main(), lambda: launch.main(lambda: None, CONF, [])):
        monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
        monkeypatch.setattr(sys, "argv", ["percasym", "--help"])
        with suppress(SystemExit):
            program()
        assert getattr(sys.excepthook, "redacts", False)


def test_the_traceback_of_a_defect_holds_no_secret(tmp_path: Path) -> None:
    script = (
        "import os, sys; from percasym.config.redaction import redact_tracebacks, redacted_output; redact_tracebacks();"
        "exec('with redacted_output(): raise RuntimeError(os.environ[\"HF_TOKEN\"])')"
    )
    environment = {"HF_TOKEN": SECRET, "PATH": "/usr/bin", "PYTHONPATH": str(CONF.parent)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "RuntimeError: [HF_TOKEN]" in done.stderr and SECRET not in done.stderr
    plain = subprocess.run(
        [sys.executable, "-c", script.replace("redact_tracebacks();", "")], env=environment, capture_output=True, text=True, check=False
    )
    assert SECRET in plain.stderr, "the test can fail"


def test_tracebacks_of_a_program_and_of_its_threads_are_redacted_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    redact_tracebacks()
    hooks = sys.excepthook, threading.excepthook
    redact_tracebacks()
    assert (sys.excepthook, threading.excepthook) == hooks, "a second call does nothing"
    error = RuntimeError(f"of the program {SECRET}")
    sys.excepthook(RuntimeError, error, None)
    thread = threading.Thread(target=lambda: {}[f"of a thread {SECRET}"])
    thread.start()
    thread.join()
    shown = capsys.readouterr().err
    assert "RuntimeError: of the program [HF_TOKEN]\n" in shown and "KeyError: 'of a thread [HF_TOKEN]'" in shown and SECRET not in shown


def test_an_interpolation_is_followed_to_its_variable_or_left_alone() -> None:
    raw = {
        "a": "${b}",
        "b": "${c.d}",
        "c": {"d": "${oc.env:HOME}/x"},
        "list": ["${b}", 2],
        "loop": "${pool}",
        "pool": "${loop}",
        "n": "${c}",
    }
    record = {"a": "/me/x", "b": "/me/x", "list": ["/me/x", 2], "loop": "once", "n": "text"}
    kept = unresolved(record, raw)
    assert kept == {"a": "${oc.env:HOME}/x", "b": "${oc.env:HOME}/x", "list": ["${oc.env:HOME}/x", 2], "loop": "once", "n": "text"}
    assert unresolved({"list": [1, 2]}, {"list": "${oc.env:LIST}"}) == {"list": [1, 2]}, "a list is recorded by its values"
    assert sorted(named_variables({"a": ["${oc.env:A}", 3], "b": {"c": "${oc.env:B,none} ${oc.env:C}"}})) == ["A", "B", "C"]


def test_a_redacted_stream_is_iterated_like_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO("a\nb\n"))
    with redacted_output():
        assert list(sys.stdout) == ["a\n", "b\n"]
