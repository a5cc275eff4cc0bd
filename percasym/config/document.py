"""Write what the code knows into the files that people read: options into conf/, tables into docs/.

    python -m percasym.config.document                              # `make conf docs`
    python -m percasym.config.document examples/plugin/conf         # the yaml files of a package of your own

A yaml keeps its head comment, its defaults list and the values it sets. Every other option of the dataclass is added with its
default and the first sentences of the field's docstring; a value that differs from the default is marked `(default: X)`. A comment
line above an option is kept: it is where a yaml gives the reason for its value.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, is_dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from percasym.config.meanings import meaning
from percasym.config.plugins import GROUPS
from percasym.config.schema import dump, options, required
from percasym.config.settings import Evaluation, Launch, RunOptions

ROOT = Path(__file__).resolve().parents[2]
SECTIONS: Mapping[str, type] = {"evaluation": Evaluation, "launch": Launch, "run": RunOptions}
"""The sections of conf/config.yaml that are no groups."""
WIDTH = 140
"""Longest line of a yaml, in characters; a docstring that does not fit is cut after a sentence."""
COLUMN = 24
"""Where the comments of short lines begin."""
TABLES: Mapping[str, tuple[str, ...]] = {
    "balance": ("w", "needs", "backwards", "equals", "source"),
    "reward": ("score", "needs", "source"),
    "task": ("percept and answer", "options"),
}
"""The groups that docs/strategies.md lists, and the columns of each table after the option's name."""
BACKWARDS = {"counts": "1", "spreads": "1", "losses": "1", "hidden": "1", "gramian": "1 + prefix"}
"""Backward passes of a step, by the numbers that a strategy needs."""


def main(argv: Sequence[str]) -> int:
    """Rewrite the files that have changed and print their paths; a file that cannot be written is named, and the exit code is then 1."""
    failed = 0
    for path, write in (pair for folder in [Path(word) for word in argv] or [ROOT / "conf"] for pair in documents(folder)):
        before = path.read_text(encoding="utf-8")
        try:
            after = write(before)
        except (ValueError, ImportError, AttributeError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed = 1
            continue
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(path)
    return failed


def documents(conf: Path) -> list[tuple[Path, Callable[[str], str]]]:
    """Each file that documents the plug-ins of the folder `conf`, and what makes its new text of its old one."""
    docs = conf.parent / "docs"
    found: list[tuple[Path, Callable[[str], str]]] = [(path, partial(_documented_at, path)) for path in plugin_files(conf)]
    found += [
        (conf / "config.yaml", with_sections),
        (docs / "strategies.md", partial(with_tables, conf=conf)),
        (docs / "architecture.md", partial(with_modules, root=conf.parent)),
    ]
    return [(path, write) for path, write in found if path.is_file()]


def _documented_at(path: Path, text: str) -> str:
    return documented(text, target(path))


def plugin_files(conf: Path, group: str | None = None) -> list[Path]:
    """The yaml files of one group of plug-ins, or of all."""
    return [path for name in ([group] if group else GROUPS) for path in sorted((conf / name).glob("*.yaml"))]


def target(path: Path) -> type:
    """The dataclass that a yaml names; its package is looked for beside the folder conf, too."""
    module, _, name = yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"].rpartition(".")
    beside = str(path.resolve().parents[2])
    if beside not in sys.path:
        sys.path.append(beside)
    cls: type = getattr(import_module(module), name)
    return cls


# The yaml of a plug-in


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What a yaml itself says of an option."""

    values: Mapping[str, Any]
    reasons: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Comment lines above an option, by its dotted key."""


def documented(text: str, cls: type) -> str:
    """The yaml `text` of a plug-in with every option of its dataclass `cls`."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    first = next(i for i, line in enumerate(lines) if line.startswith("_target_:"))
    values = yaml.safe_load(text)
    own = Own(values={key: value for key, value in values.items() if key not in ("_target_", "defaults")}, reasons=_reasons(lines[first:]))
    if unknown := own.values.keys() - options(cls).keys():
        raise ValueError(f"{cls.__name__} has no option {sorted(unknown)[0]}, which its yaml sets. Rename or remove that line.")
    return "\n".join([*lines[:start], *lines[start : first + 1], *option_lines(cls, own)]) + "\n"


def with_sections(text: str) -> str:
    """conf/config.yaml with every option of its sections."""
    for name, cls in SECTIONS.items():
        block = re.search(rf"^{name}:[^\n]*\n(?: +[^\n]*\n)*", text, flags=re.MULTILINE)
        if block is None:
            raise ValueError(f"conf/config.yaml has no section {name}.")
        own = Own(values=yaml.safe_load(block[0])[name] or {}, reasons=_reasons(block[0].splitlines()[1:], prefix=f"{name}."))
        lines = [f"{name}:{_comment(summary_of(cls), f'{name}:')}", *option_lines(cls, own, prefix=f"{name}.", indent="  ")]
        text = text[: block.start()] + "\n".join(lines) + "\n" + text[block.end() :]
    return text


def option_lines(cls: type, own: Own, *, prefix: str = "", indent: str = "") -> list[str]:
    """One line for each option of a dataclass: `key: value  # meaning`."""
    lines: list[str] = []
    for name, option in options(cls).items():
        key, says = f"{prefix}{name}", meaning(cls, name)
        nested = nested_class(cls, name)
        lines += [f"{indent}{reason}" for reason in own.reasons.get(key, ())]
        if nested and (own.values.get(name) is not None or option.default is not None):
            base = default_of(option)
            inner = Own(values=own.values.get(name) or {}, reasons=own.reasons)
            lines += [f"{indent}{name}:{_comment(says, indent + name + ':')}"]
            lines += _nested_lines(nested, inner, base, prefix=f"{key}.", indent=indent + "  ")
        elif required(option) and name not in own.values:
            lines += [_commented(indent, name, f"(required) {says}")]
        else:
            default = None if required(option) else dump(default_of(option))
            value = own.values.get(name, default)
            lines += [_line(indent, name, value, default, required(option), says)]
            if nested:
                for inside, its in options(nested).items():
                    lines += [_commented(f"{indent}  ", inside, f"{plain(default_of(its))}  {meaning(nested, inside)}")]
    return lines


def _nested_lines(cls: type, own: Own, base: Any, *, prefix: str, indent: str) -> list[str]:
    """The options of a nested dataclass; their defaults are those of the value `base`, which the outer class chose."""
    lines: list[str] = []
    for name in options(cls):
        default = dump(getattr(base, name))
        lines += [f"{indent}{reason}" for reason in own.reasons.get(f"{prefix}{name}", ())]
        lines += [_line(indent, name, own.values.get(name, default), default, False, meaning(cls, name))]
    return lines


def _line(indent: str, name: str, value: Any, default: Any, is_required: bool, says: str) -> str:
    differs = is_required or not same(value, default)
    mark = "" if not differs else "(required) " if is_required else f"(default: {plain(default)}) "
    text = f"{indent}{name}: {plain(value)}"
    return text + _comment(mark + says, text)


def _commented(indent: str, name: str, says: str) -> str:
    return f"{indent}# {name}: " + _cut(says, WIDTH - len(indent) - len(name) - 4)


def _comment(says: str, before: str) -> str:
    space = " " * max(2, COLUMN - len(before))
    return f"{space}# {_cut(says, WIDTH - len(before) - len(space) - 2)}" if says else ""


def _cut(says: str, room: int) -> str:
    """As many sentences or clauses of `says` as fit, at least the first."""
    parts = re.split(r"(?<=[.;:]) ", says)
    while len(parts) > 1 and len(" ".join(parts)) > room:
        parts.pop()
    text = " ".join(parts)
    return text[:-1] + "." if text.endswith((";", ":")) else text


def same(value: Any, default: Any) -> bool:
    """Whether a value of a yaml is the default: equal, and true or false only where that is."""
    return bool(value == default) and isinstance(value, bool) == isinstance(default, bool)


def plain(value: Any) -> str:
    """A value as YAML on one line; an interpolation stays as it is.

    >>> plain((0.9, 0.95)), plain(1e-5), plain(None), plain("${.batch_size}"), plain("no")
    ('[0.9, 0.95]', '1.0e-05', 'null', '${.batch_size}', "'no'")
    """
    if isinstance(value, str) and value.startswith("${"):
        return value
    text = yaml.safe_dump(dump(value) if not isinstance(value, dict) else value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n...\n").strip()


def default_of(option: Field[Any]) -> Any:
    """The default of a field that has one."""
    return option.default if option.default_factory is MISSING else option.default_factory()


def nested_class(cls: type, name: str) -> type | None:
    """The dataclass that an option holds, or may hold."""
    hint = get_type_hints(cls)[name]
    return next((choice for choice in (hint, *get_args(hint)) if isinstance(choice, type) and is_dataclass(choice)), None)


def _reasons(lines: Sequence[str], prefix: str = "") -> dict[str, list[str]]:
    """The comment lines right above each option, without those that this module writes (`# key: ...`)."""
    found: dict[str, list[str]] = {}
    outer, above = "", []
    for line in lines:
        text = line.strip()
        if text.startswith("#"):
            if not re.match(r"# \w+: ", text):
                above.append(text)
        elif match := re.match(r"( *)(\w+):", line):
            nested = len(match[1]) > (2 if prefix else 0)
            outer = outer if nested else match[2]
            if above:
                found[f"{prefix}{outer}.{match[2]}" if nested else f"{prefix}{match[2]}"] = above
            above = []
    return found


# The tables of docs/


def with_modules(page: str, root: Path) -> str:
    """docs/architecture.md with the modules of each folder that it lists; the last column, what they contain, is kept."""

    def filled(found: re.Match[str]) -> str:
        names = sorted(path.name for path in (root / found[1]).glob("*.py") if path.name != "__init__.py")
        return f"| `{found[1]}` | {', '.join(f'`{name}`' for name in names)} | {found[2]} |"

    return re.sub(r"^\| `(percasym/[\w/]*)` \|(?: [^|]*)?\| ([^|]*) \|$", filled, page, flags=re.MULTILINE)


def with_tables(page: str, conf: Path) -> str:
    """The page with each table between `<!-- table: GROUP -->` and `<!-- end -->` written anew."""
    for group in TABLES:
        lines = table(conf, group)
        block = rf"(<!-- table: {group}[^\n]*-->\n).*?(<!-- end -->)"
        if not re.search(block, page, flags=re.DOTALL):
            raise ValueError(f"docs/strategies.md has no place for the table of {group}: <!-- table: {group} --> and <!-- end -->.")
        page = re.sub(block, lambda found, lines=lines: f"{found[1]}{chr(10).join(lines)}\n{found[2]}", page, flags=re.DOTALL)  # type: ignore[misc]
    return page


def table(conf: Path, group: str) -> list[str]:
    """The lines of a table with a row for each yaml of a group."""
    columns = (f"`{group}=`", *TABLES[group])
    found = [(path.stem, target(path)) for path in plugin_files(conf, group)]
    if group == "balance":
        found.sort(key=lambda item: (list(BACKWARDS).index(item[1].needs), item[0]))  # type: ignore[attr-defined]
    rows = [(f"`{name}`", *row(group, cls)) for name, cls in found]
    return ["| " + " | ".join(cells) + " |" for cells in (columns, ("---",) * len(columns), *rows)]


def row(group: str, cls: type) -> tuple[str, ...]:
    """The cells of a plug-in, from its class and docstring."""
    said, summary = labelled(cls), summary_of(cls)
    sources = ", ".join(dict.fromkeys(re.findall(r"arXiv:\d+\.\d+", said.get("Source", ""))))
    if group == "balance":
        needs = cls.needs  # type: ignore[attr-defined]
        weight, equals = (said.get(label, other).removesuffix(".") for label, other in (("Weight", summary), ("Equals", "")))
        return _escaped(weight, needs, BACKWARDS[needs], equals, sources)
    if group == "reward":
        one = cls()  # A skill may be required by an option: shown is what the defaults require.
        needs = [word for word in ("outcome", "policy") if getattr(one, f"needs_{word}", False)]
        return _escaped(summary, ", ".join([*needs, *getattr(one, "requires", ())]), sources)
    return _escaped(summary, ", ".join(f"`{name}`" for name in options(cls)))


def labelled(cls: type) -> dict[str, str]:
    """The paragraphs of a docstring that begin with a label, as `Source: ...`, by label, each on one line."""
    found: dict[str, str] = {}
    label = ""
    for line in (inspect.getdoc(cls) or "").splitlines():
        if match := re.match(r"(Weight|Equals|Source): (.*)", line):
            label = match[1]
            found[label] = match[2]
        elif not line.strip():
            label = ""
        elif label:
            found[label] += f" {line.strip()}"
    return found


def summary_of(cls: type) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def _escaped(*cells: str) -> tuple[str, ...]:
    return tuple(cell.replace("|", r"\|") for cell in cells)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
