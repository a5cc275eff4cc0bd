"""From words on a command line to typed settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from percasym.config import settings as settings_module
from percasym.config.resolve import composed, rebuild
from percasym.config.schema import ConfigError, build, dump
from percasym.config.settings import DeepSpeedSettings, TorchSettings
from percasym.models.adapt import Lora
from percasym.tasks.canvas import Look

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
GROUPS = ("task", "model", "paradigm", "balance", "engine", "tracker", "scale")


NEEDED = {
    "task=jsonl": ["task.path=rows.jsonl"],
    "task=hub": ["task.path=folder"],
    "task=mm_helix": ["task.path=rows.tsv"],
    "task=vgrp": ["task.path=rows.parquet"],
    "model=auto": ["model.path=folder"],
}
"""What only the user can say, for the choices that need it; the file is not opened yet."""


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("word", [f"{group}={name}" for group in GROUPS for name in choices(group)])
def test_every_yaml_becomes_settings(resolved, word: str) -> None:
    (settings,) = resolved(word, *NEEDED.get(word, []))
    assert settings.seed == 0


@pytest.mark.parametrize("scale", choices("scale"))
@pytest.mark.parametrize("task", choices("task"))
def test_every_task_has_sizes_at_every_scale(resolved, scale: str, task: str) -> None:
    (settings,) = resolved(f"scale={scale}", f"task={task}", *NEEDED.get(f"task={task}", []))
    assert (CONF / "scale" / scale / f"{task}.yaml").exists()
    assert settings.evaluation.max_new_tokens > 0


def test_a_scale_sets_sizes_only() -> None:
    allowed = {
        "task": {"size", "givens", "nodes", "verbosity", "restate", "question", "look"},
        "model": {"size", "freeze"},  # How much of the model is trained.
        "paradigm": {
            "steps",
            "batch_size",
            "group_size",
            "micro_batch_size",
            "lr",
            "warmup_frac",
            "eval_every",
            "save_every",
            "diagnose_every",
            "record_every",
        },
        "evaluation": {"num_samples", "num_curve_samples", "batch_size", "max_new_tokens"},
    }
    for path in (CONF / "scale").rglob("*.yaml"):
        sections = yaml.safe_load(path.read_text())
        if path.stem in ("sft", "rl"):
            sections = {"paradigm": sections}  # Of a paradigm alone: config.yaml puts it there.
        if path.name == "paper.yaml":
            assert sections.pop("defaults") == [{"override /engine": "deepspeed"}], "what trains models of that size"
        for section, values in sections.items():
            assert set(values) <= allowed[section], path


def test_every_documented_option_can_be_set_without_a_plus(resolved) -> None:
    (settings,) = resolved(
        "task.size=9", "task.givens=[30,36]", "task.verbosity=3", "model.size=8B", "model.path=some/dir", "balance=fixed",
        "balance.weight=0.25",
        "paradigm.steps=10", "paradigm.batch_size=8", "paradigm.lr=1e-3", "paradigm.eval_every=50", "launch.nproc=1", "run.overwrite=true",
        "seed=1", "study=name", "evaluation.num_samples=64", "task.look.image_px=90",
    )  # fmt: skip
    assert (settings.task.size, settings.task.givens, settings.task.verbosity, settings.task.look.image_px) == (9, (30, 36), 3, 90)
    assert (settings.family.size, settings.family.path, settings.balance.weight) == ("8B", "some/dir", 0.25)
    assert (settings.paradigm.steps, settings.paradigm.batch_size, settings.paradigm.lr, settings.paradigm.eval_every) == (10, 8, 1e-3, 50)
    assert (settings.launch.nproc, settings.run.overwrite, settings.evaluation.num_samples) == (1, True, 64)
    assert (settings.seed, settings.study, settings.path) == (1, "name", Path("multirun/name/sudoku-qwen3vl-sft-fixed0.25/seed1"))
    (settings,) = resolved("task=graph_coloring", "task.nodes=[5,6]")
    assert settings.task.nodes == (5, 6)


def test_one_option_of_the_adapters_switches_them_on(resolved) -> None:
    (settings,) = resolved()
    assert settings.family.lora is None and settings.record["model"]["lora"] is None
    (settings,) = resolved("model.lora.rank=8")
    assert settings.family.lora == Lora(rank=8)
    assert settings.record["model"]["lora"] == {"rank": 8, "alpha": 32, "dropout": 0.0, "targets": ["language"]}
    (settings,) = resolved(
        "model.lora={}", "model.lora.targets=[language,projector]", "model.freeze=[]", "model.gradient_checkpointing=true"
    )
    assert settings.family.lora == Lora(targets=("language", "projector"))
    assert settings.family.gradient_checkpointing is True


def test_the_record_is_the_whole_configuration(resolved) -> None:
    (settings,) = resolved("balance=fixed", "paradigm.lr=0.002")
    record = settings.record
    assert record["balance"] == {"_target_": "percasym.balance.fixed.Fixed", "weight": 0.5}
    assert record["paradigm"]["lr"] == 0.002
    assert record["paradigm"]["final_lr_frac"] == 0.1, "defaults that no yaml spells out are recorded too"
    assert yaml.safe_load(yaml.safe_dump(record)) == record


@pytest.mark.parametrize("words", [("task=graph_coloring", "balance=fixed"), ("scale=paper", "engine.zero_stage=3", "engine.offload=true")])
def test_the_record_builds_the_same_settings(resolved, words: tuple[str, ...]) -> None:
    (settings,) = resolved(*words, "launch.nproc=2", "tracker=wandb", "run.overwrite=true")
    sent = json.loads(json.dumps({**settings.record, "run": dump(settings.run)}))
    assert rebuild(sent, path=settings.path) == settings
    assert not rebuild(settings.record, path=settings.path).run.overwrite, "what is about one call only is not recorded"


def test_plain_pytorch_is_the_engine_unless_one_asks_and_the_papers_scale_asks_for_deepspeed(resolved) -> None:
    engines = {
        (): TorchSettings,
        ("task=sudoku", "model=qwen3vl", "paradigm=sft", "balance=ngdiff"): TorchSettings,
        ("scale=smoke",): TorchSettings,
        ("engine=deepspeed",): DeepSpeedSettings,
        ("scale=paper",): DeepSpeedSettings,
        ("scale=paper", "paradigm=rl"): DeepSpeedSettings,
        ("scale=paper", "experiment=eight_gpus"): DeepSpeedSettings,
        ("experiment=eight_gpus",): DeepSpeedSettings,
        ("experiment=eight_gpus_rl",): DeepSpeedSettings,
        ("scale=paper", "engine=torch"): TorchSettings,
    }
    assert {words: type(resolved(*words)[0].engine) for words in engines} == engines


@pytest.mark.parametrize("words", [("engine=deepspeed",), ("scale=paper",), ("-m", "engine=torch,deepspeed", "study=both")])
def test_deepspeed_is_refused_by_the_name_of_its_extra_where_it_is_not_installed(
    command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(settings_module, "find_spec", lambda name: None)
    refused = command(*words)
    assert refused.code == 2
    assert refused.err.startswith(
        'engine=deepspeed needs DeepSpeed, which is not installed: pip install "percasym[deepspeed]", or choose engine=torch.'
    )
    assert list(tmp_path.iterdir()) == [], "nothing is started, not even the cell that could be"


def test_a_plan_and_a_recorded_configuration_of_deepspeed_need_no_deepspeed(resolved, monkeypatch: pytest.MonkeyPatch) -> None:
    (settings,) = resolved("scale=paper")
    monkeypatch.setattr(settings_module, "find_spec", lambda name: None)
    assert type(rebuild(settings.record, path=settings.path).engine) is DeepSpeedSettings
    assert type(composed(["scale=paper", "experiment=eight_gpus"], CONF).engine) is DeepSpeedSettings


def test_cells_of_a_study_have_their_own_directories(resolved) -> None:
    swept = resolved("-m", "task=sudoku,graph_coloring", "balance=none", "seed=0,1", "study=grid", "scale=smoke")
    assert [str(settings.path) for settings in swept] == [
        f"multirun/grid/{task}-qwen3vl-sft-none-smoke/seed{seed}" for task in ("sudoku", "graph_coloring") for seed in (0, 1)
    ]


def test_weights_tell_cells_apart(resolved) -> None:
    swept = resolved("-m", "balance=fixed", "balance.weight=0.25,0.5")
    assert [settings.path.parent.name for settings in swept] == ["sudoku-qwen3vl-sft-fixed0.25", "sudoku-qwen3vl-sft-fixed0.5"]


def test_explicit_directories_are_honoured(resolved, tmp_path: Path) -> None:
    (settings,) = resolved(f"hydra.run.dir={tmp_path / 'mine'}")
    assert settings.path.resolve() == tmp_path / "mine"
    (settings,) = resolved("-m", "seed=3", f"hydra.sweep.dir={tmp_path / 'swept'}")
    assert settings.path.resolve() == tmp_path / "swept/sudoku-qwen3vl-sft-none/seed3"


def test_a_plug_in_of_a_named_package_is_built(resolved, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Half:\n"
        "    weight: float = 0.5\n"
        "    needs = 'counts'\n"
        "    def start(self): ...\n"
        "    def step(self, state, stats): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (settings,) = resolved("plugins=[theirs]", "balance._target_=theirs.Half", "balance.weight=0.75")
    assert settings.balance.weight == 0.75
    assert command("balance._target_=theirs.Half").code == 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    count: int = 1
    rate: float = 1.0
    flag: bool = False
    kind: Literal["brief", "full"] = "brief"
    span: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()
    path: str | None = None
    look: Look = field(default_factory=Look)
    lora: Lora | None = None


def test_what_is_built_dumps_to_what_it_was_built_from() -> None:
    values = {"count": 3, "rate": 2.5, "flag": True, "kind": "full", "span": [3, 4], "names": ["a"], "path": None}
    values["look"] = dump(Look(noise=0.5))
    values["lora"] = {"rank": 2, "alpha": 4, "dropout": 0.1, "targets": ["vision"]}
    assert dump(build(Example, values, "example")) == values


def test_an_int_serves_as_a_float_and_a_list_as_a_tuple() -> None:
    built = build(Example, {"rate": 2, "span": [7, 9]}, "example")
    assert (built.rate, type(built.rate), built.span) == (2.0, float, (7, 9))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": True}, "example.count must be a whole number, got True."),
        ({"count": 1.0}, "example.count must be a whole number, got 1.0."),
        ({"count": "3"}, "example.count must be a whole number, got '3'."),
        ({"rate": False}, "example.rate must be a number, got False."),
        ({"rate": float("nan")}, "example.rate must be a number, got nan."),
        ({"flag": 1}, "example.flag must be true or false, got 1."),
        ({"kind": "ful"}, "example.kind must be brief or full, got 'ful'; did you mean full?"),
        ({"span": 7}, "example.span must be a list of 2 (a whole number, a whole number), got 7."),
        ({"span": [7, 8, 9]}, "example.span must be a list of 2 (a whole number, a whole number), got [7, 8, 9]."),
        ({"span": [7, "x"]}, "example.span[1] must be a whole number, got 'x'."),
        ({"path": 3}, "example.path must be text or null, got 3."),
        ({"look": {"nose": 1}}, "There is no option example.look.nose; did you mean example.look.noise? "),
        ({"look": 3}, "example.look must be a group of options ("),
        ({"lora": 3}, "example.lora must be a group of options (rank, alpha, dropout, targets) or null, got 3."),
        ({"lora": {"rank": "8"}}, "example.lora.rank must be a whole number, got '8'."),
        ({"cuont": 3}, "There is no option example.cuont; did you mean example.count? The options of example are count, rate, "),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(values: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Example, values, "example")
    assert str(caught.value).startswith(message)


def imports(*words: str) -> set[str]:
    """The modules that train.py imports to answer `words`, in a process of its own."""
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words], capture_output=True, text=True, env=environment, check=True)
    return {line.split("|")[-1].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize("words", [("--help",), ("--cfg", "job")])
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    imported = imports(*words)
    assert "hydra" in imported, "the list of imports is read as it should be"
    assert imported.isdisjoint({"torch", "transformers", "deepspeed", "numpy"})


def test_help_shows_every_choice_of_every_group(command) -> None:
    shown = command("--help").out
    for group in GROUPS:
        assert f"{group}: {', '.join(choices(group))}" in shown
