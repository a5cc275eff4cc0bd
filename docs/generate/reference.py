"""Write docs/reference/ from the code: every configuration key, every command with its options, every public Python name.

    python docs/generate/reference.py        (`make docs`)

The keys and their meanings are those of the dataclasses that validate a configuration, the commands those of the argument parsers,
the Python pages the docstrings.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from results import filled

import percasym
from percasym.cli import gallery
from percasym.cli.main import _parser
from percasym.config.document import SECTIONS, default_of, nested_class, plain, plugin_files, target
from percasym.config.meanings import meaning
from percasym.config.plugins import GROUPS
from percasym.config.schema import dump, options, required

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
OTHER_TRAINERS = {
    "percasym.integrations.transformers": ("BalancedTrainer",),
    "percasym.integrations.trl": ("BalancedSFTTrainer", "outcome_reward", "perception_reward", "RewardCorrelations", "grpo_row"),
}
"""Public names that need transformers' Trainer, or TRL."""
WRITTEN = "Written from the code by `make docs`."


def main() -> int:
    """Rewrite the pages that have changed and print their paths."""
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))
    return 0


def pages() -> dict[Path, str]:
    """The text of each page."""
    folder = ROOT / "docs" / "reference"
    made = {"configuration.md": configuration(), "commands.md": commands(), "python.md": python()}
    return {folder / name: "\n".join(lines).rstrip("\n") + "\n" for name, lines in made.items()}


# Configuration


def configuration() -> Iterator[str]:
    """Every option of every section and group, with its default and its meaning."""
    yield from ("# Configuration", "", WRITTEN)
    yield from _prose(
        "`python train.py GROUP=OPTION SECTION.KEY=VALUE ...`; `--help` lists groups, `--cfg job` prints the whole configuration, and "
        "`conf/` holds the files. A default is that of the class; a scale or an experiment may set another. A wrong key, type or value "
        "ends before any weight is loaded, with one sentence and exit code 2."
    )
    yield from ("## Top level", "", *_table(("key", "default", "meaning"), _top()))
    for name, cls in SECTIONS.items():
        yield from ("", f"## `{name}`", "", *_table(("key", "default", "meaning"), _options(cls, f"{name}.")))
    for group in GROUPS:
        yield from ("", f"## `{group}=`")
        for path in plugin_files(CONF, group):
            yield from ("", f"### `{group}={path.stem}`", "", *filled(_title(path)).splitlines(), "")
            rows = list(_options(target(path), f"{group}."))
            yield from _table(("key", "default", "meaning"), rows) if rows else ["No options."]
    for group, what in (("scale", "Sizes"), ("experiment", "Studies and presets")):
        rows = [(f"`{group}={path.stem}`", _title(path).partition(" Question: ")[0]) for path in sorted((CONF / group).glob("*.yaml"))]
        yield from ("", f"## `{group}=`", "", f"{what}: a file of options.", "", *_table(("option", "what it is"), rows))


def _top() -> Iterator[tuple[str, ...]]:
    for line in re.findall(r"^(?:seed|study|plugins): .*$", (CONF / "config.yaml").read_text(encoding="utf-8"), flags=re.MULTILINE):
        value, _, says = line.partition("#")
        key, _, default = value.partition(":")
        yield f"`{key}`", f"`{default.strip()}`", says.strip() or "Seed of training: weights of adapters, order and draw of samples."


def _options(cls: type, prefix: str) -> Iterator[tuple[str, ...]]:
    for name, option in options(cls).items():
        inner = nested_class(cls, name)
        default = "required" if required(option) else f"`{_plain(default_of(option))}`"
        yield f"`{prefix}{name}`", default if inner is None or default == "`null`" else "", meaning(cls, name)
        if inner is not None:
            yield from _options(inner, f"{prefix}{name}.")


def _plain(default: Any) -> str:
    try:
        return plain(dump(default))
    except TypeError:  # Fields of Python classes that no yaml sets.
        return repr(default)


def _title(path: Path) -> str:
    """The first comment of a yaml, up to its command."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# ") or line.startswith(("#   ", "# @")):
            if lines:
                break
            continue
        lines.append(line[2:])
    return " ".join(lines)


# Commands


def commands() -> Iterator[str]:
    """Every subcommand of `percasym` with its arguments."""
    yield from ("# Commands", "", WRITTEN)
    yield from _prose("A mistake is one sentence on stderr and exit code 2. Every command takes `--help`.")
    parsers = next(action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in parsers._choices_actions}
    for name, parser in sorted({**parsers.choices, "gallery": gallery.parser()}.items()):
        yield from (f"## `percasym {name}`", "", *filled(_sentence(helps[name])).splitlines(), "")
        if name == "train":
            yield from _prose("Takes what `python train.py` takes: [configuration.md](configuration.md), and Hydra's own flags.")
            continue
        yield from _table(("argument", "meaning"), (_argument(action) for action in parser._actions if action.dest != "help"))
        yield ""


def _argument(action: argparse.Action) -> tuple[str, str]:
    shown = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if not action.option_strings:
        return f"`{shown}`" + {"+": " ...", "*": " ... (any number)", "?": " (optional)"}.get(str(action.nargs), ""), action.help or ""
    value = "" if action.nargs == 0 else f" {{{','.join(map(str, action.choices))}}}" if action.choices else f" {shown}"
    says = (action.help or "").replace("%(default)s", str(action.default))
    return f"`{action.option_strings[-1]}{value}`", says


# Python


def python() -> Iterator[str]:
    """The public names of `percasym`, then those inside other trainers."""
    yield from ("# Python", "", WRITTEN)
    yield from _prose("`import percasym` loads neither torch nor transformers; each name loads its module when it is first used.")
    yield from _names((f"percasym.{name}", getattr(percasym, name)) for name in sorted(percasym._HOMES, key=str.casefold))
    for module, names in OTHER_TRAINERS.items():
        yield from (f"## {module}", "", f"`from {module} import {names[0]}`", "")
        yield from _names(((name, getattr(import_module(module), name)) for name in names), level=3)


def _names(found: Iterable[tuple[str, Any]], level: int = 2) -> Iterator[str]:
    for name, value in found:
        yield from (f"{'#' * level} `{name}`", "")
        if inspect.isfunction(value):
            yield from (f"    {line}" for line in _signature(name, value))
            yield ""
        yield from _docstring(inspect.getdoc(value) or "")
        if inspect.isclass(value) and is_dataclass(value) and (rows := list(_options(value, ""))):
            yield from (*_table(("field", "default", "meaning"), rows), "")


def _signature(name: str, function: Any) -> list[str]:
    parameters = [str(one).replace("'", "") for one in inspect.signature(function).parameters.values()]
    kinds = [one.kind for one in inspect.signature(function).parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parameters.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    returns = str(inspect.signature(function).return_annotation).strip("'")
    return [f"{name}(", *(f"    {one}," for one in parameters), f") -> {returns}"]


def _docstring(text: str) -> Iterator[str]:
    """A docstring as Markdown: prose broken anew, examples and indented blocks as code, bullets as they are."""
    for paragraph in re.split(r"\n\s*\n", text):
        if re.match(r"\s*>>>| {4}", paragraph):
            yield from (f"    {line}" for line in paragraph.splitlines())
        else:
            yield from filled(paragraph).splitlines()
        yield ""


# Markdown


def _prose(text: str) -> Iterator[str]:
    yield from ("", *filled(text).splitlines(), "")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _sentence(text: str) -> str:
    return text.rstrip(".") + "."


if __name__ == "__main__":
    sys.exit(main())
