"""Check what configuration files composed before Hydra acts on it: Hydra instantiates callbacks, launcher, sweeper and logging by itself.

Files of a configuration are data, whoever wrote them and however they got in (--config-dir, experiment=, hydra.searchpath, a cell of a
study). What runs code of other packages, deletes a run or writes elsewhere counts only where the command line names it.
`install` wraps the two methods with which Hydra reads a file and composes: for a run, a sweep, each cell, --cfg and `hydra.compose`.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from percasym.config.files import UnfitFileError, check_yaml, read_bytes
from percasym.config.redaction import is_secret, named_variables
from percasym.config.schema import ConfigError

SWEEPER = "hydra_plugins.percasym.StudySweeper"
"""The only sweeper: Hydra's own would take words of a file for words of the command line."""
LAUNCHERS = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher": "basic",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": "joblib",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": "submitit_local",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": "submitit_slurm",
}
"""Class of a launcher -> its option, whose defaults its package registered."""
SIZES = (
    "n_jobs", "verbose", "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "partition", "qos",
    "account", "comment", "constraint", "exclude", "gres", "cpus_per_gpu", "gpus_per_task", "mem_per_gpu", "mem_per_cpu", "max_num_timeout",
    "array_parallelism",
)  # fmt: skip
"""Options of a launcher that a file may set: where and with how much a cell runs. Others are commands (`setup`, `python`) or paths."""
WORD = re.compile(r"[\w.,:=/@&|*()\[\]-]*")
"""Text that a file may set there: submitit writes it into a shell script, so it holds no space, line break, quote or dollar sign."""
LOGGING: dict[str, Any] = {"version": 1, "root": None, "disable_existing_loggers": False}
"""What conf/config.yaml chooses (`none`)."""
SPECIAL = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")
"""Keys that `hydra.utils.instantiate` acts on, at any depth."""
ROOT = "multirun"
"""Folder, below the current one, in which runs of a configuration file lie."""
COMMANDED = ("plugins", "run.overwrite", "task.allow_outside")
"""Options that count only on the command line: they import code, delete a run, read any file of this machine."""


def install() -> None:
    """Check every configuration that Hydra composes in this process from now on."""
    if not hasattr(ConfigLoaderImpl.load_configuration, "checks_files"):
        ConfigLoaderImpl.load_configuration = _checked(ConfigLoaderImpl.load_configuration)  # type: ignore[method-assign]
        ConfigRepository.load_config = _bounded(ConfigRepository.load_config)  # type: ignore[method-assign,assignment]


def check_files(cfg: DictConfig, words: Sequence[str]) -> None:
    """Refuse what only the command line, `words`, may set in a composed configuration.

    Raises ConfigError.
    """
    named = keys_of(words)
    hydra = cfg.hydra
    if hydra.get("callbacks"):
        raise ConfigError(f"hydra.callbacks calls {_targets(hydra.callbacks)}, and percasym calls no callbacks. Take the section out.")
    _check_sweeper(hydra.sweeper)
    _check_launcher(hydra.launcher, named)
    for name in ("hydra_logging", "job_logging"):
        chosen = _values(hydra, resolve=False)[name]
        if chosen is not None and chosen != LOGGING and chosen not in _known_logging(name):
            raise ConfigError(f"hydra.{name} is none of Hydra's own settings (none, disabled, default, stdout), and could call anything.")
    for key in ("job.env_copy", "job.env_set", "output_subdir"):
        value = OmegaConf.select(hydra, key)
        if key == "job.env_set":  # Without what the command line sets, or has copied.
            copied = value if _is_named("hydra.job.env_copy", named) else ()
            value = {name: text for name, text in value.items() if name not in copied and not _is_named(f"hydra.{key}.{name}", named)}
        if value and not _is_named(f"hydra.{key}", named):
            raise ConfigError(f"A file sets hydra.{key} to {value}, and that counts only on the command line. Take it out.")
    for key in COMMANDED:
        if not _is_named(key, named) and (value := OmegaConf.select(cfg, key)):
            shown = f"[{','.join(map(str, value))}]" if key == "plugins" else str(value).lower()
            word = f"{key}={shown}"
            raise ConfigError(f"A file sets {word}, and that counts only on the command line. Add {word} there if you trust the file.")
    given = " ".join(words)
    for name in set(named_variables(OmegaConf.to_container(cfg, resolve=False))):
        if is_secret(name) and name not in given:
            raise ConfigError(f"A file asks for the environment variable {name}, a secret by its name. Write a value in its place.")
    _check_places(hydra, named)


def check_cells(words: Iterable[str]) -> None:
    """Refuse words of a study's file, of its cells and params, that count only on the command line; each is `key=value`, or a key.

    A section that holds such an option is refused, too, unless the value chooses an option of a group (`task=sudoku`): a mapping
    (`++task={...}`) sets what is in it.
    Raises ConfigError.
    """
    for word in words:
        plain, value = _plain(word), word.partition("=")[2]
        chooses = plain == "task" and bool(value) and "{" not in value
        if re.split(r"[./]", plain)[0] == "hydra" or (not chooses and any(f"{each}.".startswith(f"{plain}.") for each in COMMANDED)):
            raise ConfigError(f"The cells of a study set {plain}, and that counts only on the command line. Give it there.")


def keys_of(words: Iterable[str]) -> list[str]:
    """The keys that command-line words set.

    >>> keys_of(["++plugins=[clocks]", "hydra/launcher=joblib", "~balance.weight"])
    ['plugins', 'hydra.launcher', 'balance.weight']
    """
    return [_plain(word).replace("/", ".") for word in words]


def _plain(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0].strip()


def _is_named(key: str, named: Sequence[str]) -> bool:
    """Whether the command line sets this key, or the section that holds it."""
    return any(f"{key}.".startswith(f"{word}.") for word in named)


def _checked(load: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    @wraps(load)
    def load_configuration(loader: Any, config_name: str | None, overrides: list[str], *rest: Any, **options: Any) -> DictConfig:
        cfg = load(loader, config_name, overrides, *rest, **options)
        if config_name is not None:  # Else `--hydra-help`, which reads no file and starts nothing.
            check_files(cfg, overrides)
        return cfg

    load_configuration.checks_files = True  # type: ignore[attr-defined]
    return load_configuration


def _bounded(load: Callable[[ConfigRepository, str], Any]) -> Callable[[ConfigRepository, str], Any]:
    parsed: dict[tuple[str, str], tuple[bytes, Any]] = {}
    """Text and result of each file: the cells of a study are composed from the same ones, and parsing takes a third of that time."""

    @wraps(load)
    def load_config(repository: ConfigRepository, config_path: str) -> Any:
        source = repository._find_object_source(config_path=config_path, object_type=ObjectType.CONFIG)
        if source is None or source.scheme() != "file":
            return load(repository, config_path)
        path = Path(source.path) / source._normalize_file_name(config_path)
        key = source.provider, str(path)
        try:
            text = read_bytes(path)
            if key not in parsed or parsed[key][0] != text:
                check_yaml(text.decode("utf-8"), str(path))
                parsed[key] = text, load(repository, config_path)
        except UnfitFileError as error:
            raise ConfigError(str(error)) from error
        return copy.deepcopy(parsed[key][1])  # Hydra writes into what it gets.

    return load_config


def _check_sweeper(sweeper: DictConfig) -> None:
    values = _values(sweeper, resolve=True)
    if values.get("_target_") != SWEEPER:
        raise ConfigError(f"hydra.sweeper._target_ must be {SWEEPER} (hydra/sweeper=study), got {values.get('_target_')!r}.")
    _check_plain("hydra.sweeper", values)


def _check_launcher(launcher: DictConfig, named: Sequence[str]) -> None:
    values = _values(launcher, resolve=True)
    target = values.get("_target_")
    if target not in LAUNCHERS:
        allowed = ", ".join(LAUNCHERS.values())
        raise ConfigError(f"hydra.launcher._target_ must be the class of hydra/launcher={allowed}, got {target!r}.")
    _check_plain("hydra.launcher", values)
    option = f"hydra/launcher/{LAUNCHERS[target]}.yaml"
    default = _values(OmegaConf.structured(ConfigStore.instance().load(option).node), resolve=False)
    raw = _values(launcher, resolve=False)
    for key in (key for key in values if raw[key] != default.get(key) and not _is_named(f"hydra.launcher.{key}", named)):
        value = values[key]
        if key not in SIZES or not (value is None or isinstance(value, int | float) or (isinstance(value, str) and WORD.fullmatch(value))):
            raise ConfigError(f"A file sets hydra.launcher.{key} to {value!r}, and that counts only on the command line. Take it out.")


def _values(node: DictConfig, *, resolve: bool) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(node, resolve=resolve)
    assert isinstance(values, dict)
    return values


def _check_plain(where: str, values: dict[Any, Any]) -> None:
    for key in _keys({name: value for name, value in values.items() if name != "_target_"}):
        if key in SPECIAL:
            raise ConfigError(f"{where} holds a key {key}, which Hydra would act on. Take it out.")


def _keys(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(inner)


def _check_places(hydra: DictConfig, named: Sequence[str]) -> None:
    """Runs of a file's study lie in multirun/, cells in the folder of their study; the command line may say another place."""
    places = []
    for key, parent in (("run.dir", None), ("sweep.dir", None), ("sweep.subdir", "sweep.dir")):
        try:
            place = str(OmegaConf.select(hydra, key))
            base = ROOT if parent is None else str(OmegaConf.select(hydra, parent))
        except Exception:  # A wrong study or choice: Hydra raises it again where it uses the value, or nobody does.
            continue
        if not _is_named(f"hydra.{key}", named):
            places.append((key, place, base, parent))
    for key, place, base, parent in places:
        root = os.path.abspath(base)
        if not Path(os.path.abspath(os.path.join(root, place) if parent else place)).is_relative_to(root):
            raise ConfigError(f"A file sets hydra.{key} to {place}, outside {base}. Name that place on the command line, or take it out.")


def _known_logging(name: str) -> list[Any]:
    """Hydra's own settings of its logging."""
    folder = files("hydra.conf") / "hydra" / name
    texts = [file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".yaml")]
    return [OmegaConf.to_container(OmegaConf.create(text), resolve=False) for text in texts]


def _targets(callbacks: DictConfig) -> str:
    return ", ".join(str(one.get("_target_")) for one in callbacks.values() if isinstance(one, DictConfig)) or "something"
