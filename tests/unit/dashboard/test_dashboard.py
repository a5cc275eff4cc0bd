"""A study's W&B workspace: its panels use documented metrics that the study logged, and it is written without key or network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from percasym.cli.main import main
from percasym.dashboard.workspace import sections
from percasym.runs.rundir import RunDirectory

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
DEFINED = {key for row in re.findall(r"^\| (`.*?) \|", PAGE, flags=re.MULTILINE) for key in re.findall(r"`([^`]+)`", row)}
REWARD = re.compile(r"^(reward(?=/)|corr(?=/(?!outcome/)))/[a-z_]+/")
SFT = {"eval/end_to_end", "eval/perception", "eval/reasoning", "balance/weight", "share/loss", "grad/perception", "grad/reasoning"}
RL = {
    "eval/end_to_end", "eval/perception", "eval/reasoning", "balance/weight", "reward/total/mean", "reward/consensus/mean",
    "corr/outcome/perception/within", "corr/consensus/perception/within", "corr/consensus/perception",
}  # fmt: skip
TRACKER = {"_target_": "percasym.runs.trackers.WandbTracker", "project": "ours", "entity": "us"}


def is_documented(name: str) -> bool:
    """Whether docs/metrics.md defines a metric; those of an evaluation stand there without `eval/`."""
    return REWARD.sub(r"\1/<name>/", name.removeprefix("eval/")) in DEFINED


@pytest.fixture
def study(tmp_path: Path):
    """`study(SFT, name="mine", tracker=TRACKER)`: the folder of a study with one run that logged these metrics."""

    def make(metrics: set[str], name: str = "mine", tracker: dict[str, Any] | None = None) -> Path:
        run = RunDirectory.open(tmp_path / "multirun" / name / "cell" / "seed0", {"study": name, "seed": 0, "tracker": tracker or TRACKER})
        run.log(1, dict.fromkeys(metrics, 0.5))
        run.finish({})
        return tmp_path / "multirun" / name

    return make


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine where nobody is logged in to W&B."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


def named(value: Any, key: str = "") -> Iterator[str]:
    """Every metric that a definition refers to."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from named(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from named(item, key)
    elif key in ("metrics", "xAxis", "yAxis") and value not in ("step", "_step"):
        yield value.removeprefix("summary:")


def written(folder: Path, *words: str) -> dict[str, Any]:
    file = folder / "dashboard.json"
    assert main(["dashboard", str(folder), "--out", str(file), *words]) == 0
    return json.loads(file.read_text(encoding="utf-8"))


def test_a_definition_refers_to_what_its_study_logged(study, nobody) -> None:
    pytest.importorskip("wandb_workspaces")
    for metrics, name, titles in ((SFT, "sft", {"Gradients"}), (RL, "rl", {"Rewards", "Correlation of rewards with perception"})):
        made = written(study(metrics, name))
        found = set(named(made["spec"]))
        assert found == metrics
        assert all(map(is_documented, found))
        shown = {section["name"] for section in made["spec"]["section"]["panelBankConfig"]["sections"]}
        assert shown - {"Trade-off", "Perception and reasoning", "Weight of perception", "Samples"} == titles


def test_a_definition_is_a_workspace_over_the_runs_of_its_study(study, nobody) -> None:
    internal = pytest.importorskip("wandb_workspaces.workspaces.internal")
    made = written(study(SFT))
    assert (made["entity"], made["project"], made["name"]) == ("us", "ours", "percasym: mine")
    (runs,) = made["spec"]["section"]["runSets"]
    (group,) = runs["filters"]["filters"]
    assert (group["key"]["name"], group["op"], group["value"]) == ("group", "=", "mine")
    frontier = made["spec"]["section"]["panelBankConfig"]["sections"][0]["panels"][0]
    assert frontier["viewType"] == "Scatter Plot"
    assert (frontier["config"]["xAxis"], frontier["config"]["yAxis"]) == ("summary:eval/perception", "summary:eval/reasoning")
    again = internal.WorkspaceViewspec.model_validate(made["spec"])
    assert again.model_dump(mode="json", by_alias=True, exclude_none=True) == made["spec"]


def test_options_choose_project_and_entity(study, nobody) -> None:
    pytest.importorskip("wandb_workspaces")
    made = written(study(SFT), "--project", "other", "--entity", "them")
    assert (made["entity"], made["project"]) == ("them", "other")
    assert written(study(SFT, "apart", {"_target_": "percasym.runs.trackers.NoTracker"}))["project"] == "percasym"


def test_every_panel_uses_documented_metrics() -> None:
    names = {name.replace("<name>", "consensus") for name in DEFINED} | {
        f"reward/{name}/mean" for name in ("outcome", "perception", "total")
    }
    everything = names | {f"eval/{name}" for name in DEFINED}
    shown = {name for _, panels in sections(everything) for panel in panels for name in panel.metrics}
    assert all(map(is_documented, shown))
    assert {"eval/perception", "share/gradient", "policy/kl", "corr/consensus/perception/within", "reward/total/mean"} <= shown
    assert sections(set()) == []


def test_a_scatter_needs_both_of_its_axes() -> None:
    assert [
        panel.title for _, panels in sections({"eval/perception", "eval/end_to_end"}) for panel in panels if panel.kind == "scatter"
    ] == ["end to end a against perception a_p"]


def test_without_a_key_it_is_one_sentence(study, nobody, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("wandb_workspaces")
    assert main(["dashboard", str(study(SFT))]) == 2
    assert capsys.readouterr().err == "Nobody is logged in to W&B. Run `wandb login`, or write the definition with --out FILE.\n"


def test_without_a_network_it_is_one_sentence(study, nobody, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    wandb, ws = pytest.importorskip("wandb"), pytest.importorskip("wandb_workspaces.workspaces")

    def unreachable(*_: object, **__: object) -> None:
        raise wandb.errors.CommError("the server\ndid not answer.")

    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "Api", unreachable)
    monkeypatch.setattr(ws.Workspace, "save", unreachable)
    for tracker in (TRACKER, TRACKER | {"entity": None}):  # Where the runs name the entity, W&B is not queried for it.
        assert main(["dashboard", str(study(SFT, f"to_{tracker['entity']}", tracker))]) == 2
        assert capsys.readouterr().err == (
            "W&B did not take the dashboard (the server did not answer). Check key and network, or write the definition with --out FILE.\n"
        )


def test_a_saved_dashboard_says_where_it_is(study, nobody, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    wandb, ws = pytest.importorskip("wandb"), pytest.importorskip("wandb_workspaces.workspaces")
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(ws.Workspace, "save", lambda made: made)
    monkeypatch.setattr(ws.Workspace, "url", property(lambda made: f"https://wandb.example/{made.entity}/{made.project}"))
    assert main(["dashboard", str(study(SFT))]) == 0
    assert capsys.readouterr().out == "Dashboard: https://wandb.example/us/ours\n"


def test_more_than_one_study_or_project_is_refused(study, nobody, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("wandb_workspaces")
    study(SFT, "one")
    study(SFT, "two", TRACKER | {"project": "theirs"})
    assert main(["dashboard", str(tmp_path / "multirun"), "--out", "x.json"]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'multirun'} holds 2 studies (one, two). Name the folder of one.\n"
    run = RunDirectory.open(tmp_path / "multirun" / "one" / "cell" / "seed1", {"study": "one", "tracker": TRACKER | {"project": "theirs"}})
    run.finish({})
    assert main(["dashboard", str(tmp_path / "multirun" / "one"), "--out", "x.json"]) == 2
    assert capsys.readouterr().err == "These runs went to 2 places (ours, theirs). Choose one with --project.\n"
    assert main(["dashboard", str(tmp_path / "none"), "--out", "x.json"]) == 2


def test_a_study_that_was_never_sent_says_so(study, nobody, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("wandb_workspaces")
    folder = study(SFT, "apart", {"_target_": "percasym.runs.trackers.NoTracker"})
    untracked = f"No run of {folder} was sent to W&B, so a workspace would show nothing"
    assert main(["dashboard", str(folder)]) == 2
    assert capsys.readouterr().err == f"{untracked}. Train with tracker=wandb, or write the definition with --out FILE.\n"
    written(folder)
    assert capsys.readouterr().out == (
        f"{untracked} until they are: train with tracker=wandb.\nDashboard of 1 run: {folder / 'dashboard.json'}\n"
    )


def test_a_missing_package_is_one_sentence(study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("percasym.cli.dashboard.find_spec", lambda name: None)
    assert main(["dashboard", str(study(SFT))]) == 2
    assert "pip install wandb-workspaces" in capsys.readouterr().err


def test_a_name_that_a_workspace_does_not_take_is_one_sentence(study, nobody, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("wandb_workspaces")
    folder = study(SFT)
    (config,) = folder.rglob("config.yaml")
    config.write_text(config.read_text().replace("mine", "'\\x1b[2J<script>'"))
    assert main(["dashboard", str(folder), "--out", str(tmp_path / "out.json")]) == 2
    assert capsys.readouterr().err.startswith("There is no dashboard of these runs (1 validation error for Workspace ")


def test_a_login_without_a_default_user_needs_an_entity(
    study, nobody, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "Api", lambda **_: SimpleNamespace(default_entity=None))
    assert main(["dashboard", str(study(SFT, tracker=TRACKER | {"entity": None}))]) == 2
    assert capsys.readouterr().err == "W&B knows no default user or team for this login. Name one with --entity.\n"
