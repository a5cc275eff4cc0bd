"""A data set on the hub without a network: one whole sentence within seconds, from the task itself and from a command."""

from __future__ import annotations

import time

import pytest

from percasym.cli import main as cli
from percasym.config import network


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    pytest.importorskip("datasets")
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    network.unreachable.cache_clear()
    yield
    network.unreachable.cache_clear()


@pytest.mark.parametrize("words", [["task.preset=none"], []], ids=["free text", "a released set"])
def test_a_data_id_without_a_network_is_one_sentence_within_seconds(no_network, words: list[str], capsys: pytest.CaptureFixture) -> None:
    import datasets  # noqa: F401, its import is not what is timed.

    name = "xqwu/asymmetric-VLM__sudoku" if not words else "nobody/nothing-here"
    began = time.perf_counter()
    assert cli.main(["export", "task=hub", f"task.path={name}", *words, "--out", "nowhere"]) == 2
    assert time.perf_counter() - began < 15
    said = capsys.readouterr().err
    assert said.startswith(f"task.path={name} is no folder here, is not in the local cache, and the Hugging Face hub cannot be reached (")
    assert said.endswith("Give task.path a folder, or download the set where there is a network.\n")
    assert said.count("\n") == 1


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "SECONDS", -0.9)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: SimpleNamespace(head=lambda *_, **__: time.sleep(1)))
    network.unreachable.cache_clear()
    try:
        assert network.unreachable() == "no answer"
        assert constants.HF_HUB_OFFLINE, "the libraries use their caches without asking"
    finally:
        network.unreachable.cache_clear()
