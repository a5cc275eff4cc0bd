"""Every yaml of a plug-in lists every option of its dataclass, with its default; conf/config.yaml those of its sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from percasym.config.document import documented, documents, main, options, plugin_files, same, target, with_sections, with_tables
from percasym.config.meanings import meaning
from percasym.config.schema import dump, required
from tests.laws.plugins import FOLDERS, ROOT

FILES = [path for folder in FOLDERS for path in plugin_files(folder)]
REMEDY = "run `make conf docs`, or python -m percasym.config.document FOLDER for a package of your own"
each_yaml = pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")


@each_yaml
def test_a_yaml_lists_every_option_with_its_default(path: Path) -> None:
    cls, text = target(path), path.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    for name, option in options(cls).items():
        if required(option):
            assert name in values or f"# {name}: (required)" in text, f"{path} lacks {name}: {REMEDY}"
            continue
        assert name in values, f"{path} lacks {name}: {REMEDY}"
        default = dump(option.default_factory() if callable(option.default_factory) else option.default)
        line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
        if not isinstance(default, dict) and not same(values[name], default):
            assert "(default: " in line, f"{path} sets {name}={values[name]}, and the default is {default}: {REMEDY}"


@each_yaml
def test_a_yaml_is_what_the_dataclass_makes_of_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert documented(text, target(path)) == text, REMEDY


@each_yaml
def test_every_option_says_what_it_means(path: Path) -> None:
    silent = [name for name in options(target(path)) if not meaning(target(path), name)]
    assert silent == [], f"{path.stem}: give these fields a docstring"


def test_the_sections_of_a_run_and_the_tables_of_the_docs_are_current() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path, _ in documents(ROOT / "conf")}
    stale = [path for path, write in documents(ROOT / "conf") if write(texts[path]) != texts[path]]
    assert stale == [], REMEDY


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """Nested options."""

    size: int = 3
    """Side in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An example of options."""

    count: int
    """How many; a second sentence."""
    rate: float = 1e-5
    """Per step."""
    inner: Inner = field(default_factory=Inner)
    """How it looks."""
    extra: Inner | None = None
    """Off by default."""


HEAD = "# A title.\n#   a command\n_target_: x.Example\n"


def test_options_are_added_and_own_values_marked_and_reasons_kept() -> None:
    text = documented(f"{HEAD}# Four, because three is too few.\nrate: 0.5\ninner: {{size: 4}}\n", Example)
    assert text == (
        f"{HEAD}"
        "# count: (required) How many; a second sentence.\n"
        "# Four, because three is too few.\n"
        "rate: 0.5               # (default: 1.0e-05) Per step.\n"
        "inner:                  # How it looks.\n"
        "  size: 4               # (default: 3) Side in pixels.\n"
        "extra: null             # Off by default.\n"
        "  # size: 3  Side in pixels.\n"
    )
    assert documented(text, Example) == text


def test_the_law_notices_a_missing_option_and_another_default() -> None:
    text = documented(f"{HEAD}count: 2\n", Example)
    assert documented(text.replace("rate: 1.0e-05", "rate: 2.0e-05"), Example) != text.replace("rate: 1.0e-05", "rate: 2.0e-05")
    without = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("rate:"))
    assert documented(without, Example) == text != without


def test_the_command_writes_what_it_can_and_names_what_it_cannot(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "balance").mkdir(parents=True)
    fixed = "# A title.\n_target_: percasym.balance.fixed.Fixed\n"
    (tmp_path / "balance" / "fixed.yaml").write_text(fixed)
    (tmp_path / "balance" / "gone.yaml").write_text("# A title.\n_target_: percasym.balance.gone.Gone\n")
    assert main([str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert shown.out.split() == [str(tmp_path / "balance" / "fixed.yaml")]
    assert "gone.yaml: No module named 'percasym.balance.gone'" in shown.err
    assert "\nweight: 0.5  " in (tmp_path / "balance" / "fixed.yaml").read_text()


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="Example has no option cuont, which its yaml sets"):
        documented(f"{HEAD}cuont: 2\n", Example)
    with pytest.raises(ValueError, match=r"conf/config.yaml has no section evaluation"):
        with_sections("seed: 0\n")
    with pytest.raises(ValueError, match=r"docs/strategies.md has no place for the table of balance"):
        with_tables("# Strategies\n", ROOT / "conf")
