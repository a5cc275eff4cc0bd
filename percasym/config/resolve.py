"""From Hydra's configuration to typed settings: the only module outside launch/ that imports Hydra and OmegaConf.

Each option of a group is a plug-in (`percasym.config.plugins`): a yaml with `_target_` and values for the fields of that frozen
dataclass. Every field can be set from the command line without a `+`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from percasym.config import composed_files
from percasym.config.paradigm import Rl
from percasym.config.plugins import GROUPS, plugin, recorded, trust
from percasym.config.redaction import ENVIRONMENT, is_secret, named_variables, unresolved
from percasym.config.schema import ConfigError, build, dump, no_such, read
from percasym.config.settings import Evaluation, Launch, RunOptions, Settings

OF_RL = ("reward", "rollout")
"""Groups that only paradigm=rl has."""
TOKENS = "tokens"
"""A group whose default is none, with options of either paradigm."""
SECTIONS = {"evaluation": Evaluation, "launch": Launch, "run": RunOptions}
VALUES: dict[str, Any] = {"seed": int, "study": str, "plugins": tuple[str, ...]}
VERBATIM = ("task.boundary", "task.ground_truth")
"""Options whose value is a regular expression: Hydra would drop backslashes before brackets, and spaces at the end."""
STUDY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def resolve(cfg: DictConfig, *, choices: Mapping[str, str | None], path: Path) -> Settings:
    """The typed settings of a composed configuration.

    `choices` is what was chosen in each group (`{"task": "sudoku"}`), `path` the run directory.
    Raises ConfigError. Imports the modules of the plug-ins, which import no torch.
    """
    try:
        tree = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(sentence(error)) from error
    assert isinstance(tree, dict)
    return _settings(tree, choices, path, raw=OmegaConf.to_container(cfg, resolve=False))


def composed(words: Sequence[str], conf: Path) -> Settings:
    """The settings of train.py for these words of its command line; runs nothing and makes no directory.

    Raises ConfigError.
    """
    with initialize_config_dir(config_dir=str(conf.resolve()), version_base="1.3"):
        try:
            cfg = compose("config", overrides=force_options(words, conf), return_hydra_config=True)
        except Exception as error:  # Hydra's, about the words.
            raise ConfigError(sentence(error)) from error
    choices = cfg.hydra.runtime.choices
    with read_write(cfg), open_dict(cfg):
        del cfg.hydra
    return resolve(cfg, choices=choices, path=Path())


def rebuild(record: Mapping[str, Any], *, path: Path, plugins: Sequence[str] | None = None) -> Settings:
    """The settings of a recorded configuration, without Hydra; where it has no section `run`, that section has its defaults.

    `plugins` are the packages that the user trusts, None those of the record: only for a record that this process made.
    Raises ConfigError.
    """
    used = () if plugins is None else read(record.get("plugins"), VALUES["plugins"], "plugins")
    if unnamed := [name for name in used if name not in (plugins or ())]:
        asked = f"Add --plugins {' '.join(unnamed)} if you trust it."
        raise ConfigError(f"{path} was made with plugins=[{','.join(unnamed)}], whose code would run. {asked}")
    if plugins is not None and (secret := next(filter(is_secret, named_variables(record)), None)):
        raise ConfigError(f"{path} asks for the environment variable {secret}, a secret by its name. Write a value in its place.")
    return _settings(_from_environment(record), {}, path, raw=record)


def _from_environment(value: Any) -> Any:
    """A record with the values of the environment variables that it names."""
    if isinstance(value, Mapping):
        return {key: _from_environment(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_environment(item) for item in value]
    if not isinstance(value, str) or not ENVIRONMENT.search(value):
        return value
    try:
        return OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=True)["value"]  # type: ignore[index, call-overload]
    except OmegaConfBaseException as error:
        raise ConfigError(sentence(error)) from error


def _settings(tree: Mapping[Any, Any], choices: Mapping[str, str | None], path: Path, raw: Any) -> Settings:
    known = [*VALUES, *GROUPS, *SECTIONS]
    for key in tree:
        if key not in known:
            raise ConfigError(no_such("", str(key), known, owner="a run"))
    values = {key: read(tree.get(key), hint, key) for key, hint in VALUES.items()}
    folder(values["study"])
    if not 0 <= values["seed"] < 2**63:  # The range of torch.manual_seed.
        raise ConfigError(f"seed must be at least 0 and below 2 ** 63, got {values['seed']}.")
    trusted = trust(values["plugins"])
    plugins = {group: plugin(group, tree.get(group), choices.get(group), trusted) for group in GROUPS if group not in (*OF_RL, TOKENS)}
    samples = isinstance(plugins["paradigm"], Rl)
    for group in OF_RL:
        if tree.get(group) is not None and not samples:
            raise ConfigError(f"{group}={choices.get(group)} needs paradigm=rl, got paradigm={choices.get('paradigm')}.")
        plugins[group] = plugin(group, tree.get(group), choices.get(group), trusted) if samples else None
    plugins[TOKENS] = None if tree.get(TOKENS) is None else plugin(TOKENS, tree.get(TOKENS), choices.get(TOKENS), trusted)
    if (chosen := plugins[TOKENS]) is not None and (chosen.paradigm == "rl") is not samples:
        raise ConfigError(f"tokens={choices.get(TOKENS) or tree[TOKENS]['_target_']} is for paradigm={chosen.paradigm}. Leave it out.")
    sections: dict[str, Any] = {name: build(cls, tree.get(name) or {}, name) for name, cls in SECTIONS.items()}
    record = {key: dump(value) for key, value in values.items()}
    record |= {group: recorded(chosen) for group, chosen in plugins.items() if chosen is not None}
    record |= {name: dump(section) for name, section in sections.items() if name != "run"}  # `run.*` concerns this command, not the run.
    record = unresolved(record, raw)
    return Settings(path=path, record=record, family=plugins.pop("model"), **values, **plugins, **sections)


def force_options(argv: Sequence[str], conf: Path) -> list[str]:
    """The command line with `++` before each option that is no group of `conf`.

    Without it, Hydra rejects options that no yaml contains. `resolve` checks them against the dataclass instead, with a better message.
    Groups, flags and Hydra's own keys stay as they are. The value of an option in VERBATIM is quoted, so that Hydra's grammar does not
    change it.

    >>> force_options(["task=sudoku", "task.size=9", "-m", "hydra.run.dir=x"], Path("conf"))
    ['task=sudoku', '++task.size=9', '-m', 'hydra.run.dir=x']
    >>> print(*force_options([r"task.boundary=\\(So\\) "], Path("conf")), sep="|")
    ++task.boundary='\\(So\\) '
    """
    return [f"++{_verbatim(word)}" if _is_option(word, conf) else word for word in argv]


def _verbatim(word: str) -> str:
    """`word`, its value in Hydra's quotes where it must not be changed; null, and a value that is quoted already, stay."""
    key, _, value = word.partition("=")
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if key not in VERBATIM or quoted or value in ("", "null"):
        return word
    value = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + (f"\\{found[2]}" if found[2] else ""), value)
    return f"{key}='{value}'"


def sentence(error: Exception) -> str:
    """An error of Hydra or OmegaConf in one sentence."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        close = get_close_matches(name, error.options, n=1)
        guess = f"; did you mean {group}={close[0]}?" if close else "."
        return f"There is no {group}={name}{guess} The choices are {', '.join(error.options)}."
    if isinstance(error, OverrideParseException):
        return f"Cannot read {error.override.removeprefix('++')!r} on the command line: quote it for the shell, and write key=value."
    if ambiguous := re.match(r"Ambiguous value for argument '(?:\+\+)?([^=]*)=(.*)'", str(error)):
        key, values = ambiguous.groups()
        return f"{key}={values} is more than one value: write {key}=[{values}] for a list, or put -m first for one run of each."
    if isinstance(error, OmegaConfBaseException) and error.msg and error.full_key:
        first = error.msg.splitlines()[0]  # The rest repeats the key and names OmegaConf's own types.
        _, ours, message = first.partition("ConfigError raised while resolving interpolation: ")
        return message if ours else f"{error.full_key}: {first}."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read or written ({error.strerror}). Name another place."
    if isinstance(error, UnicodeDecodeError):
        return f"A file of the configuration is not text ({error})."
    return " ".join(str(error).replace("++", "").split())


def cell(*keys: str, _root_: DictConfig) -> str:
    """Directory name of a composed configuration (not yet checked): the choices in which the cells of a study differ.

    A study that sweeps over more than that names the `keys`: `${cell:balance.kind}` ends in -cosine, `${cell:paradigm.lr}` in -lr0.001,
    `${cell:task.givens}` in -givens8-10.
    """
    chosen = _root_.hydra.runtime.choices
    weight = OmegaConf.select(_root_, "balance.weight")
    shown = f"{weight:g}" if isinstance(weight, int | float) else ""
    scale = [] if chosen.scale == "tiny" else [chosen.scale]
    reward = [] if chosen.reward in (None, "oracle") else [chosen.reward]
    tokens = [chosen.tokens] if chosen.get("tokens") else []
    more = [_named(key.rpartition(".")[2], OmegaConf.select(_root_, key)) for key in keys if OmegaConf.select(_root_, key) is not None]
    return "-".join([chosen.task, chosen.model, chosen.paradigm, f"{chosen.balance}{shown}", *reward, *tokens, *more, *scale])


def _named(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, ListConfig):
        return name + "-".join(str(one) for one in value).lower()
    return f"{name}{value:g}" if isinstance(value, float) else f"{name}{value}".lower()


def folder(study: str) -> str:
    """Returns `study` if it names a folder inside multirun/. Hydra makes the directory before the configuration is checked."""
    if not STUDY.fullmatch(str(study)):
        raise ConfigError(f"study must be a name of letters, digits, '_', '-' and '.', got {study!r}.")
    return study


composed_files.install()
OmegaConf.register_new_resolver("cell", cell, replace=True)
OmegaConf.register_new_resolver("folder", folder, replace=True)


def _is_option(word: str, conf: Path) -> bool:
    key, equals, _ = word.partition("=")
    plain = bool(equals) and re.fullmatch(r"[A-Za-z_][\w.]*", key) is not None
    return plain and key.split(".")[0] != "hydra" and not (conf / key).is_dir()
