"""Whole runs mirrored to W&B offline, read back from the files that `wandb sync` would send."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wandb")

ROOT = Path(__file__).resolve().parents[2]
BLOCK, HEAD = 32768, 7
"""A .wandb file is a LevelDB log behind 7 bytes of its own: blocks of 32 KiB; records in pieces, each behind checksum, length and kind."""
WHOLE, LAST = 1, 4
KEY = "0123456789abcdef" * 2 + "01234567"
"""40 letters, as a key of W&B has."""

FEW = [
    "tracker=wandb", "tracker.tags=[mine]", "scale=smoke", "engine=torch", "paradigm.batch_size=2", "paradigm.eval_every=2",
    "paradigm.save_every=1", "evaluation.num_samples=2", "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=6",
]  # fmt: skip
RL = ["paradigm=rl", "paradigm.group_size=3", "paradigm.micro_batch_size=2", "balance=fixed", "balance.weight=0.3"]


@dataclass
class Session:
    """What one .wandb file holds."""

    about: Any = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[dict[str, Path]] = field(default_factory=list)
    """Of each table: where its file and its pictures wait for `wandb sync`."""
    exit_code: int | None = None

    @property
    def numbers(self) -> list[dict[str, Any]]:
        """The rows as lines of metrics.jsonl."""
        return [{name: value for name, value in row.items() if name[0] != "_" and not name.startswith("samples/")} for row in self.rows]


def records(path: Path) -> Iterator[Any]:
    """The protobuf messages of a .wandb file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, message = path.read_bytes(), HEAD, b""
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:  # Too little is left of the block for another piece.
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if at + HEAD + length > len(data):
            return  # InferenceOnlyEngine being written.
        message += data[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in (WHOLE, LAST):
            yield Record.FromString(message)
            message = b""


def read(path: Path) -> Session:
    """A session from its file, which W&B's service, a process of its own, closes a moment after the command has ended."""
    give_up = time.monotonic() + 30
    while (session := so_far(path)).exit_code is None and time.monotonic() < give_up:
        time.sleep(0.1)
    return session


def so_far(path: Path) -> Session:
    """What the file of a session holds."""
    session = Session()
    for record in records(path):
        match record.WhichOneof("record_type"):
            case "run":
                session.about = record.run
            case "metric":
                session.metrics[record.metric.name] = record.metric
            case "history":
                items = [("/".join(item.nested_key) or item.key, json.loads(item.value_json)) for item in record.history.item]
                session.rows.append(dict(items))
            case "summary":
                for item in record.summary.update:
                    session.summary["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
            case "artifact":
                session.artifacts.append({entry.path: Path(entry.local_path) for entry in record.artifact.manifest.contents})
            case "exit":
                session.exit_code = record.exit.exit_code
    return session


@pytest.fixture
def train(command, blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`train("paradigm.steps=4")`: a run with tracker=wandb where nobody is logged in."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    return lambda *words: command(*words, *FEW, f"model.path={blank}")


def sessions(path: Path) -> list[Session]:
    return [read(file) for file in sorted(path.glob("wandb/offline-run-*/*.wandb"))]


def lines(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(text) for text in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if value is not None and name != "not_finite"} for line in found]


def run_of(path: Path) -> Path:
    (run,) = (file.parent for file in path.rglob("meta.json"))
    return run


def documented(*titles: str) -> set[str]:
    """The metrics that these sections of docs/metrics.md define."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    sections = {text.partition("\n")[0]: text for text in page.split("\n## ")}
    rows = [row for title in titles for row in re.findall(r"^\| (`.*?) \|", sections[title], flags=re.MULTILINE)]
    return {key for row in rows for key in re.findall(r"`([^`]+)`", row)}


EVALUATED = {f"eval/{key}{end}" for key in documented("The metrics of an evaluation") for end in ("", "/lo", "/hi")} | {"eval/num_samples"}
SHARED = {"balance/weight", "tokens/perception", "tokens/reasoning", "grad/norm", "lr", "time/step_seconds"}
"""Metrics of a training step that a step of RL has as well."""
SAMPLED = ["evaluation.num_sampled=2", "evaluation.samples_per_prompt=2"]
"""Sampled answers beside the greedy ones."""


@pytest.fixture
def verdicts_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grades as a model would earn that sometimes sees and sometimes thinks: a blank one earns none, and constants have no correlation."""
    from percasym import metrics
    from percasym.types import Grade

    count = iter(range(10**6))

    def grade(*_: object) -> Grade:
        n = next(count)
        return Grade(perception=n % 4 == 0, perception_graded=n % 5 / 4, outcome=n % 2 == 0, faithful=n % 7 < 3, faults=())

    monkeypatch.setattr(metrics, "grade", grade)


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (["paradigm.steps=2", "balance=hidden", *SAMPLED], documented("The numbers of a training step")),
        (
            ["paradigm.steps=2", *RL, "paradigm.kl=0.1", "paradigm.epochs=2", "paradigm.importance_cap=2.0", "tokens=vppo", *SAMPLED],
            documented("The rewards of an RL step", "The numbers of a step of RL") | SHARED,
        ),
    ],
    ids=["sft", "rl"],
)
def test_every_documented_metric_is_mirrored_and_nothing_else(
    train, tmp_path: Path, verdicts_vary, words: list[str], step: set[str]
) -> None:
    answer = train(*words)
    assert answer.code == 0, answer.err
    run = run_of(tmp_path)
    (session,) = sessions(run)
    assert session.numbers == lines(run), "row for line, number for number"
    assert [row["_step"] for row in session.rows] == [*range(len(session.rows))]
    rewards = re.compile(r"^(reward(?=/)|corr(?=/(?!outcome/)))/[a-z_]+/")
    names = {rewards.sub(r"\1/<name>/", name) for row in session.numbers for name in row}
    assert names - {"step"} == step | EVALUATED
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert {name: session.summary[name] for name in summary} == summary
    assert session.exit_code == 0


def test_a_run_is_found_by_what_it_is(train, tmp_path: Path) -> None:
    assert train("paradigm.steps=1", "study=mine").code == 0
    run = run_of(tmp_path)
    (session,) = sessions(run)
    assert session.about.run_id == json.loads((run / "meta.json").read_text())["id"]
    assert session.about.run_group == "mine"
    assert session.about.job_type == "sft"
    assert session.about.display_name == "sudoku-qwen3vl-sft-none-smoke/seed0"
    assert set(session.about.tags) == {"sudoku", "qwen3vl", "none", "mine"}
    charts = {name for name, metric in session.metrics.items() if not metric.options.hidden}
    assert {"eval/end_to_end", "balance/weight", "share/loss", "loss/total"} <= charts
    assert not charts & {"step", "eval/end_to_end/lo", "eval/num_samples", "time/step_seconds"}
    assert {metric.step_metric for name, metric in session.metrics.items() if name != "step"} == {"step"}
    assert not any(metric.summary.ByteSize() for metric in session.metrics.values()), "the last value, under the plain name"


def test_each_evaluation_is_a_table_with_pictures(train, tmp_path: Path) -> None:
    assert train("paradigm.steps=2", *RL).code == 0
    run = run_of(tmp_path)
    (session,) = sessions(run)
    shown = {
        (name, row["step"]): row[f"{name}/path"]
        for row in session.rows
        for name in ("samples/test", "samples/rollouts")
        if f"{name}/path" in row
    }
    assert sorted(shown) == [("samples/rollouts", 1), ("samples/rollouts", 2), ("samples/test", 0), ("samples/test", 2)]
    staged = session.artifacts[-2]  # The last but one: the rollouts of step 2, before the last evaluation.
    table = json.loads(staged["samples/rollouts.table.json"].read_text(encoding="utf-8"))
    assert len(table["data"]) == 6, "two prompts of three rollouts"
    first = dict(zip(table["columns"], table["data"][0], strict=True))
    assert staged[first["picture"]["path"]].read_bytes().startswith(b"\x89PNG")
    assert first["question"] == "Solve the Sudoku."
    assert {"p*", "stated percept", "a_p", "reasoning", "answer", "a", "reward/oracle", "advantage"} <= set(first)


def test_a_resumed_run_has_one_id_and_its_last_session_holds_all_of_it(train, tmp_path: Path, interrupt_at) -> None:
    interrupt_at(4)
    assert train("paradigm.steps=4").code == 130
    run = run_of(tmp_path)
    (stopped,) = sessions(run)
    assert stopped.exit_code == 1
    assert train("paradigm.steps=4").code == 0
    first, second = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    assert first.with_suffix(".wandb.synced").exists(), "`wandb sync` must not overwrite the whole run with a part of it"
    assert not second.with_suffix(".wandb.synced").exists()
    whole = read(second)
    assert whole.about.run_id == stopped.about.run_id
    assert not whole.about.resume, "a session that holds everything replaces what is there"
    assert whole.numbers == lines(run)
    assert [row["step"] for row in whole.numbers if "loss/total" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in whole.rows if "samples/test/path" in row] == [0, 2, 4]
    assert whole.exit_code == 0


def closed_as_failed(path: Path) -> None:
    """Two runs of one study, each with an id and an end of its own."""
    found = [session for run in path.rglob("meta.json") for session in sessions(run.parent)]
    assert len({session.about.run_id for session in found}) == 2
    assert [session.exit_code for session in found] == [1, 1]
    assert {session.about.run_group for session in found} == {"apart"}


def test_a_run_that_fails_is_closed_and_the_next_one_is_another(train, tmp_path: Path) -> None:
    for seed in (0, 1):
        answer = train(f"seed={seed}", "paradigm.steps=2", "paradigm.lr=1e30", "study=apart")
        assert answer.code == 2
        assert "loss/total is nan at step 2." in answer.err
    closed_as_failed(tmp_path)


@pytest.mark.slow
def test_each_cell_of_a_sweep_is_a_run_of_its_own(train, tmp_path: Path) -> None:
    train("-m", "seed=0,1", "paradigm.steps=2", "paradigm.lr=1e30", "study=apart")
    closed_as_failed(tmp_path)


def test_the_key_reaches_no_file(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    answer = train("paradigm.steps=1", "tracker.mode=offline")
    assert answer.code == 0, answer.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert KEY not in answer.out + answer.err
    refused = train("paradigm.steps=1", f"tracker.api_key={KEY}", "study=other")
    assert refused.code == 2
    assert KEY not in refused.err
    assert not [path for path in (tmp_path / "multirun" / "other").rglob("*") if path.is_file()]
