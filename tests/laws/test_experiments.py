"""Laws of conf/experiment: a study states question, prediction, cost and command, and every cell of it can run."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext

from percasym.config.resolve import composed, force_options
from percasym.launch.sweep.sweeper import Checked, StudySweeper

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
EXPERIMENTS = {path.stem: path for path in sorted((CONF / "experiment").glob("*.yaml"))}
STUDIES = [name for name, path in EXPERIMENTS.items() if "cells:" in path.read_text()]
CLAIMS = {"asymmetry", "modest_upweighting", "perception_first", "token_reweighting_rl", "coupling"}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without runs, so that no cell is done."""
    monkeypatch.chdir(tmp_path)


@cache
def cells(name: str, *words: str) -> list[Checked]:
    """What `python train.py -m experiment=NAME WORDS` would run."""
    given = force_options([f"experiment={name}", *words], CONF)
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        config = compose("config", overrides=[f"experiment={name}"], return_hydra_config=True)
        configured = config.hydra.sweeper
        sweeper = StudySweeper(cells=configured.cells, params=configured.params)
        sweeper.config = config
        sweeper.context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
        return sweeper.checked(given)


def head(name: str) -> dict[str, str]:
    """The parts of the comment that an experiment begins with."""
    comment = " ".join(line.removeprefix("#").strip() for line in EXPERIMENTS[name].read_text().splitlines() if line.startswith("#"))
    return dict(re.findall(r"(Question|Prediction|Cost|Command): (.*?)(?= (?:Prediction|Cost|Command): |$)", comment))


def names(found: list[Checked]) -> list[str]:
    return [re.sub(r"^(sudoku|graph_coloring)-qwen3vl-", "", cell.name) for cell in found]


def test_the_studies_of_the_paper_are_there() -> None:
    assert {"sft_frontier", "rl_frontier", "strategies", "surrogates"} | CLAIMS <= set(STUDIES)


SEEDS = {
    "demo": "0",
    "miniature_qwen3vl": "0,1,2,3,4",
    "modest_upweighting": "2,3,4",
    "rl_demo": "0",
    "balancing_map": "11",
    "rl_regimes_starts": "11",
    "rl_regimes": "12,13,14",
}
"""The demos take minutes; the map has many settings and no seed that confirms anything; starts are made once, for three seeds of RL."""


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_states_question_prediction_cost_and_command(name: str) -> None:
    stated = head(name)
    assert list(stated) == ["Question", "Prediction", "Cost", "Command"]
    assert stated["Question"].endswith("?")
    assert re.search(r"\d+ (runs|hours)|runs of", stated["Cost"])
    assert stated["Command"].startswith(f"python train.py -m experiment={name} ")
    assert f"multirun/{name}" in stated["Command"]


@pytest.mark.parametrize("name", STUDIES)
def test_every_cell_of_a_study_can_run_in_a_directory_of_its_own(name: str) -> None:
    found = cells(name, "seed=3")
    assert len(found) > 1
    assert {cell.folder for cell in found} == {Path("multirun") / name}
    assert all(cell.name.endswith("/seed3") for cell in found), "the command line takes the place of the study's seeds"
    expected = yaml.safe_load(EXPERIMENTS[name].read_text())["hydra"]["sweeper"]
    seeds = expected.get("params", {}).get("seed", "0")
    assert seeds == SEEDS.get(name, "0,1"), "each cell has two seeds"
    stated = head(name)["Cost"]
    if number := re.match(r"(\d+) runs", stated):
        assert int(number[1]) == len(seeds.split(",")) * len(found)


@pytest.mark.parametrize("name", sorted(EXPERIMENTS.keys() - set(STUDIES)))
def test_every_other_overlay_has_a_title_and_a_command_and_composes(name: str) -> None:
    text = EXPERIMENTS[name].read_text()
    assert f"experiment={name}" in text
    words = next(line.split("train.py ")[1].split() for line in text.splitlines() if "train.py " in line)
    assert composed(words, CONF).record


def test_the_frontier_of_sft_runs_seed_by_seed_and_changes_nothing_but_the_weight() -> None:
    found = cells("sft_frontier")
    one_seed = ["sft-none", "sft-ngdiff", *(f"sft-fixed{w}" for w in (0.1, 0.3, 0.5, 0.7, 0.9))]
    assert names(found) == [f"{cell}/seed{seed}" for seed in (0, 1) for cell in one_seed]
    by_hand = composed(["study=sft_frontier", "paradigm.eval_every=100", "balance=fixed", "balance.weight=0.1", "seed=0"], CONF)
    assert composed(found[2].words, CONF).record == by_hand.record


def test_the_demo_is_ordinary_training_beside_balanced_gradients_with_nothing_else_changed() -> None:
    found = cells("demo")
    assert [cell.name for cell in found] == [f"sudoku-internvl35-sft-{balance}/seed0" for balance in ("none", "ngdiff")]
    for cell, balance in zip(found, ("none", "ngdiff"), strict=True):
        by_hand = composed(["study=demo", "task=sudoku", "model=internvl35", f"balance={balance}"], CONF)
        assert composed(cell.words, CONF).record == by_hand.record


def test_the_demo_of_rl_makes_its_start_first_and_changes_nothing_but_the_reward() -> None:
    start, outcome, seeing = (composed(cell.words, CONF) for cell in cells("rl_demo", "seed=3"))
    folder = "multirun/rl_demo/sudoku-internvl35-sft-none/seed3"
    assert next(iter(cells("rl_demo", "seed=3"))).path == Path(folder)
    assert start.family.path is None
    assert outcome.family.path == seeing.family.path == f"{folder}/final"
    differing = {key for key in outcome.record if outcome.record[key] != seeing.record[key]}
    assert differing == {"balance"}
    assert outcome.evaluation == seeing.evaluation == start.evaluation
    assert (outcome.paradigm.batch_size, outcome.paradigm.group_size) == (64, 8)


def test_the_cells_of_the_demo_run_side_by_side_by_default() -> None:
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        composition = compose("config", overrides=["experiment=demo"], return_hydra_config=True).hydra
    assert composition.mode.name == "MULTIRUN"
    assert (composition.runtime.choices["hydra/launcher"], composition.launcher.n_jobs) == ("joblib", 2)
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.partition("\ndemo: ")[2].partition("\n\n")[0].splitlines()[1:]
    assert recipe == ["\t$(BIN)/percasym demo"]
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert any(package.startswith("hydra-joblib-launcher") for package in needed), "the demo runs from an installed package, too"


def test_strategies_and_surrogates_leave_none_out() -> None:
    kinds = {"schedule-linear", "schedule-cosine", "schedule-perception_first"}
    strategies = {path.stem for path in (CONF / "balance").glob("*.yaml")} - {"schedule", "fixed", "saw", "staged"} | {"fixed0.5"} | kinds
    assert set(names(cells("strategies", "seed=3"))) == {f"sft-{name}/seed3" for name in strategies}
    rewards = {path.stem for path in (CONF / "reward").glob("*.yaml")} - {"oracle"}
    rewarded = {"rl-none", "rl-fixed0.3", *(f"rl-fixed0.3-{reward}" for reward in rewards)}
    assert set(names(cells("surrogates", "seed=3"))) == {f"{cell}/seed3" for cell in rewarded}


def test_the_command_line_takes_the_place_of_cells() -> None:
    found = cells("sft_frontier", "balance=fixed", "balance.weight=0.2,0.4", "seed=7", "study=mine")
    assert names(found) == ["sft-fixed0.2/seed7", "sft-fixed0.4/seed7"]
    assert {cell.folder for cell in found} == {Path("multirun/mine")}
    more = cells("sft_frontier", "seed=0", "task=sudoku,graph_coloring")
    assert len(more) == 14, "a further sweep multiplies them"
