"""Hub ids: their files come from one commit, `model.revision` pins it, and they are checked like those of a directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from percasym.config.resolve import composed
from percasym.config.schema import ConfigError
from percasym.models import checkpoint, hub, locate, processor
from percasym.models.adapt import Lora
from percasym.models.locate import CheckpointError, packaged
from percasym.models.qwen3vl import Qwen3VL
from percasym.runs.identity import first_difference

ROOT = Path(__file__).resolve().parents[3]
CONF = ROOT / "conf"
OLD, NEW = "a" * 40, "b" * 40
LONGEST = {OLD: 65_536, NEW: 32_768}
"""Commit -> largest area of a picture in it."""


def files(folder: Path, longest: int) -> None:
    """The packaged checkpoint with another bound on its pictures."""
    shutil.copytree(packaged("qwen3vl"), folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["size"]["longest_edge"] = longest
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A local cache in the library's layout: me/tiny with the branches `main` and `old`; no network."""
    from huggingface_hub import constants

    repository = tmp_path / "hub" / "models--me--tiny"
    (repository / "refs").mkdir(parents=True)
    for branch, commit in (("main", NEW), ("old", OLD)):
        (repository / "refs" / branch).write_text(commit)
        files(repository / "snapshots" / commit, LONGEST[commit])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    caches = (hub.snapshot, hub.unreachable, checkpoint.tokenizer, checkpoint.image_processor)
    for each in caches:
        each.cache_clear()
    yield repository
    for each in caches:
        each.cache_clear()


@pytest.mark.parametrize(("revision", "commit"), [(None, NEW), ("main", NEW), ("old", OLD), (OLD, OLD)])
def test_a_revision_chooses_the_commit_of_every_file(cache: Path, revision: str | None, commit: str) -> None:
    family = Qwen3VL(path="me/tiny", revision=revision)
    assert family.image_settings()["max_pixels"] == LONGEST[commit]
    assert locate.source(family.checkpoint) == {"path": "me/tiny", "revision": revision, "commit": commit}
    assert hub.snapshot(family.checkpoint, weights=True) == cache / "snapshots" / commit
    assert family.codec().encode("12") == Qwen3VL().codec().encode("12")
    assert Path(family.load().name_or_path) == cache / "snapshots" / commit


def test_what_moves_between_two_reads_does_not_mix_commits(cache: Path) -> None:
    assert hub.snapshot("me/tiny@old", weights=False).name == OLD
    (cache / "refs" / "old").write_text(NEW)
    assert hub.snapshot("me/tiny@old", weights=True).name == OLD


def test_a_local_directory_has_no_source(tmp_path: Path) -> None:
    assert locate.source(str(tmp_path)) is None


def test_a_revision_is_recorded_and_part_of_what_a_run_is() -> None:
    words = ["scale=smoke", "model.path=me/tiny"]
    plain, pinned = (composed([*words, *more], CONF).record for more in ([], ["model.revision=old"]))
    assert (plain["model"]["revision"], pinned["model"]["revision"]) == (None, "old")
    assert first_difference(plain, pinned) == "model.revision=null, this one asks for model.revision=old"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["model.path=HERE", "model.revision=v1"], "model.revision=v1 is for a hub id, and model.path=HERE is a directory here. Leave one"),
        (["model.revision=v1"], "model.revision=v1 is for a hub id, and the packaged checkpoint has no revisions. Leave it out."),
        (["model.path=me/tiny", "model.revision=../../x"], "model.revision must be a branch, a tag or a commit of the hub, got '../../x'."),
        (["model.path=me/tiny@v1"], "model.path=me/tiny@v1 is no directory here and no hub id. Give a revision of a hub id as model.revis"),
        (["model.path='~nobody-here/x'"], "~nobody-here/x begins with the home of a user who is not here"),
    ],
)
def test_a_revision_of_something_else_is_refused(tmp_path: Path, words: list[str], reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        composed(["scale=smoke", *(word.replace("HERE", str(tmp_path)) for word in words)], CONF)
    assert str(refused.value).startswith(reason.replace("HERE", str(tmp_path)))


def test_a_revision_that_is_not_there_is_one_sentence(cache: Path) -> None:
    with pytest.raises(CheckpointError, match=r"me/tiny@gone is no directory here, is not in the local cache, and the Hugging Face hub"):
        Qwen3VL(path="me/tiny", revision="gone").codec()


def test_files_of_the_hub_are_checked_before_its_weights_are_needed(cache: Path) -> None:
    for file in (cache / "snapshots" / OLD).glob("*.safetensors"):
        file.unlink()
    family = Qwen3VL(path="me/tiny", revision="old")
    assert family.codec().encode("12")
    config = cache / "snapshots" / OLD / "config.json"
    values = json.loads(config.read_text())
    values["text_config"]["num_hidden_layers"] = 10**7
    config.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"sets num_hidden_layers to 10,000,000"):
        family.load()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_adapters_name_the_revision_of_their_base_as_peft_does(cache: Path, tmp_path: Path) -> None:
    family = Qwen3VL(path="me/tiny", revision="old", lora=Lora(rank=2))
    family.save(family.load(), tmp_path / "adapters")
    written = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert (written["base_model_name_or_path"], written["revision"]) == ("me/tiny", "old")
    assert locate.adapter_base(str(tmp_path / "adapters")) == "me/tiny@old"


class Hub(BaseHTTPRequestHandler):
    """The three calls of the hub's interface that a download makes, for the commits in `folder`."""

    folder: ClassVar[Path]
    branches: ClassVar = {"main": NEW, "v1": OLD}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/me/tiny/revision/"):
            self.answer(json.dumps({"id": "me/tiny", "sha": self.branches[path.rpartition("/")[2]], "siblings": []}).encode())
        elif path.startswith("/api/models/me/tiny/tree/"):
            listed = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name}
                for file in (self.folder / path.rpartition("/")[2]).iterdir()
            ]
            self.answer(json.dumps(listed).encode())
        elif path.startswith("/me/tiny/resolve/"):
            commit, name = path.split("/")[-2:]
            self.answer((self.folder / commit / name).read_bytes(), {"ETag": f'"{commit[:4]}{name}"', "X-Repo-Commit": commit})
        else:
            self.answer(b"", code=200 if path == "/" else 404)

    do_HEAD = do_GET  # noqa: N815

    def answer(self, body: bytes, headers: dict[str, str] | None = None, code: int = 200) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def test_a_download_asks_a_hub_for_the_pinned_commit_alone(tmp_path: Path) -> None:
    for commit in (OLD, NEW):
        files(tmp_path / "served" / commit, LONGEST[commit])
    Hub.folder, Hub.asked = tmp_path / "served", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = (
        "import sys; from percasym.models.qwen3vl import Qwen3VL; from percasym.models.locate import source;"
        "family = Qwen3VL(path='me/tiny', revision='v1'); family.load();"
        "print(family.image_settings()['max_pixels'], source(family.checkpoint)['commit'])"
    )
    environment = {
        **os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_CACHE": str(tmp_path / "cache"), "NO_PROXY": "*",
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "passed"),
    }  # fmt: skip
    try:
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300, check=False)
    finally:
        server.shutdown()
        server.server_close()
    assert done.stdout.split() == [str(LONGEST[OLD]), OLD], done.stderr
    assert Hub.asked and not any(NEW in path or "main" in path for path in Hub.asked)
    assert f"/me/tiny/resolve/{OLD}/model.safetensors" in Hub.asked


def test_what_is_neither_a_hub_id_nor_a_directory_is_in_no_place() -> None:
    assert not hub.cached("a/b/c"), "no hub id has two slashes"
    assert not locate.is_here("~no_such_user_here/model")


def test_where_torchvision_is_the_processor_is_that_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoProcessor  # Before it is asked for torchvision, which is not here.

    loaded: list[tuple[str, dict]] = []

    def from_pretrained(where: str, **options: object) -> str:
        loaded.append((where, options))
        return "its own"

    monkeypatch.setattr("transformers.utils.is_torchvision_available", lambda: True)
    monkeypatch.setattr(AutoProcessor, "from_pretrained", from_pretrained)
    assert processor.processor.__wrapped__(packaged("qwen3vl")) == "its own"
    assert loaded == [(packaged("qwen3vl"), {"trust_remote_code": False})]


def test_a_processor_that_cannot_be_made_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.is_torchvision_available", lambda: False)
    with monkeypatch.context() as patch:
        patch.setattr(processor, "without_videos", lambda cls: lambda: None)  # Of another release: it takes none of the parts.
        with pytest.raises(CheckpointError, match=r"The processor of .*qwen3vl cannot be made from its parts \(.*unexpected key"):
            processor.processor.__wrapped__(packaged("qwen3vl"))
    monkeypatch.setattr(checkpoint, "config", lambda path: SimpleNamespace(model_type="gpt2"))
    with pytest.raises(CheckpointError, match=r"^here is of type gpt2, which has no processor for pictures and text in transformers\.$"):
        processor._class("here")
