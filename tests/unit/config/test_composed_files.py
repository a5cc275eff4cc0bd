"""What a composed configuration may not say unless the command line does; composed once, then changed as a file would."""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from percasym.config.composed_files import check_cells, check_files, install
from percasym.config.resolve import composed
from percasym.config.schema import ConfigError

CONF = Path(__file__).resolve().parents[3] / "conf"
TOUCH = {"_target_": "os.mkdir", "path": "owned"}
CLASSES = {
    "callback": ({"callbacks": {"evil": TOUCH}}, "hydra.callbacks calls os.mkdir, and percasym calls no callbacks."),
    "launcher": ({"launcher": {"_target_": "os.mkdir"}}, "hydra.launcher._target_ must be the class of "),
    "sweeper": ({"sweeper": {"_target_": "os.mkdir", "path": "owned"}}, "hydra.sweeper._target_ must be hydra_plugins.percasym."),
    "sweeper of Hydra": (
        {"sweeper": {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"}},
        "hydra.sweeper._target_ must be hydra_plugins.percasym.StudySweeper",
    ),
    "class inside the cells": ({"sweeper": {"params": {"seed": TOUCH}}}, "hydra.sweeper holds a key _target_, which Hydra would act on."),
    "factory of a log handler": (
        {"job_logging": {"version": 1, "handlers": {"x": {"()": "os.mkdir", "path": "owned"}}, "root": {"handlers": ["x"]}}},
        "hydra.job_logging is none of Hydra's own settings",
    ),
    "factory of Hydra's log handler": (
        {"hydra_logging": {"version": 1, "handlers": {"x": {"()": "os.mkdir", "path": "owned"}}, "root": {"handlers": ["x"]}}},
        "hydra.hydra_logging is none of Hydra's own settings",
    ),
    "environment": ({"job": {"env_set": {"LD_PRELOAD": "evil.so"}}}, "A file sets hydra.job.env_set to {'LD_PRELOAD': 'evil.so'}, "),
    "copied environment": ({"job": {"env_copy": ["HOME"]}}, "A file sets hydra.job.env_copy to ['HOME'], "),
    "files of Hydra elsewhere": ({"output_subdir": "../../owned"}, "A file sets hydra.output_subdir to ../../owned, "),
    "run elsewhere": ({"run": {"dir": "owned"}}, "A file sets hydra.run.dir to owned, outside multirun."),
    "study elsewhere": ({"sweep": {"dir": "multirun/../owned"}}, "A file sets hydra.sweep.dir to multirun/../owned, outside multirun."),
    "cell elsewhere": ({"sweep": {"subdir": "../../owned"}}, "A file sets hydra.sweep.subdir to ../../owned, outside multirun/main."),
}


@pytest.fixture(scope="module")
def whole() -> DictConfig:
    """The configuration of `train.py scale=smoke`, Hydra's part included."""
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose("config", overrides=["scale=smoke"], return_hydra_config=True)


def changed(whole: DictConfig, content: dict) -> DictConfig:
    """A copy with these values, as a file would set them."""
    cfg = deepcopy(whole)
    OmegaConf.set_struct(cfg, False)
    with open_dict(cfg):
        if launcher := content.pop("launcher", None):
            cfg.hydra.launcher = launcher
        for key, value in content.items():
            OmegaConf.update(cfg, f"hydra.{key}", value, merge=key not in ("job_logging", "hydra_logging"))
    return cfg


def test_what_this_repository_composes_passes(whole: DictConfig) -> None:
    check_files(whole, [])


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_has_nothing_called_imported_or_written_elsewhere(whole: DictConfig, name: str) -> None:
    content, sentence = CLASSES[name]
    with pytest.raises(ConfigError) as refused:
        check_files(changed(whole, dict(content)), [])
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("word", "content"),
    [
        ("hydra.job.env_set.A=1", {"job": {"env_set": {"A": "1"}}}),
        ("hydra.job={env_set:{A:1}}", {"job": {"env_set": {"A": "1"}}}),
        ("hydra.output_subdir=x", {"output_subdir": "x"}),
        ("hydra.run.dir=/elsewhere", {"run": {"dir": "/elsewhere"}}),
        ("hydra.sweep.dir=/elsewhere", {"sweep": {"dir": "/elsewhere"}}),
    ],
)
def test_the_command_line_may_say_it(whole: DictConfig, word: str, content: dict) -> None:
    check_files(changed(whole, dict(content)), [word])
    with pytest.raises(ConfigError):
        check_files(changed(whole, dict(content)), ["seed=1"])


def test_an_option_of_a_launcher_is_a_number_or_a_word(whole: DictConfig) -> None:
    joblib = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "n_jobs": 2}
    check_files(changed(whole, {"launcher": joblib}), [])
    for more, sentence in (
        ({"x": TOUCH}, "hydra.launcher holds a key _target_, which Hydra would act on."),
        ({"temp_folder": "owned"}, "A file sets hydra.launcher.temp_folder to 'owned', and that counts only on the command line."),
        ({"partition": "a\ntouch owned"}, "A file sets hydra.launcher.partition to 'a\\ntouch owned', and that counts only on the command"),
    ):
        with pytest.raises(ConfigError) as refused:
            check_files(changed(whole, {"launcher": joblib | more}), [])
        assert str(refused.value).startswith(sentence)
    check_files(changed(whole, {"launcher": joblib | {"temp_folder": "owned"}}), ["hydra.launcher.temp_folder=owned"])


def test_plugins_overwriting_and_secrets_count_on_the_command_line_alone(whole: DictConfig) -> None:
    for word, sentence in (
        ("plugins=[evil]", "A file sets plugins=[evil], and that counts only on the command line. Add plugins=[evil] there if you trust "),
        ("run.overwrite=true", "A file sets run.overwrite=true, and that counts only on the command line. "),
        ("tracker.project=${oc.env:WANDB_API_KEY,x}", "A file asks for the environment variable WANDB_API_KEY, a secret by its name."),
    ):
        cfg = deepcopy(whole)
        OmegaConf.set_struct(cfg, False)
        cfg.merge_with_dotlist([word])
        with pytest.raises(ConfigError) as refused:
            check_files(cfg, ["seed=1"])
        assert str(refused.value).startswith(sentence)
        check_files(cfg, [f"++{word}"])


@pytest.mark.parametrize(
    "key", ["+hydra.callbacks.x._target_", "hydra/launcher", "plugins", "++run.overwrite", "run", "task", "++task={allow_outside:true}"]
)
def test_cells_of_a_study_are_no_command_line(key: str) -> None:
    with pytest.raises(ConfigError, match="counts only on the command line"):
        check_cells([key])
    check_cells(["balance", "balance.weight", "run.keep_last", "task=sudoku", "task=jsonl"])


def test_every_composition_is_checked_not_only_that_of_train_py(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "evil.yaml").write_text("# @package _global_\nplugins: [evil]\n")
    with pytest.raises(ConfigError, match="A file sets plugins="):
        composed([f"hydra.searchpath=[{tmp_path}]", "experiment=evil", "scale=smoke"], CONF)
    bomb = "# @package _global_\na: &a [x, x]\nb: &b [*a, *a]\nstudy: [*b, *b]\n"
    for text, reason in ((bomb, "has an alias"), ("# @package _global_\nstudy: " + "[" * 100 + "]" * 100, "nested more than 64 deep")):
        (tmp_path / "experiment" / "evil.yaml").write_text(text)
        with pytest.raises(ConfigError, match=reason):
            composed([f"hydra.searchpath=[{tmp_path}]", "experiment=evil", "scale=smoke"], CONF)


def test_a_composition_reads_a_file_that_changed_and_leaves_no_trace_in_the_next_one(tmp_path: Path) -> None:
    """Files are parsed once in a process, as long as they hold the same bytes."""
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    file = conf / "balance" / "fixed.yaml"
    install()
    with initialize_config_dir(config_dir=str(conf), version_base="1.3"):
        given = compose("config", overrides=["balance=fixed", "balance.weight=0.7"])
        assert (given.balance.weight, compose("config", overrides=["balance=fixed"]).balance.weight) == (0.7, 0.5)
        file.write_text(file.read_text().replace("weight: 0.5", "weight: 0.25"))
        assert compose("config", overrides=["balance=fixed"]).balance.weight == 0.25
