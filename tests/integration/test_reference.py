"""docs/reference/ is what the code says, and names every option, command and public function."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import percasym
from percasym.config.document import plugin_files, target
from percasym.config.schema import options

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "generate"))
pytest.importorskip("trl", reason="pip install 'percasym[trl]'")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    import reference

    return {path.name: text for path, text in reference.pages().items()}


def test_the_pages_are_current(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == text, "run `make docs`"


def test_every_option_of_every_yaml_is_named(pages: dict[str, str]) -> None:
    page = pages["configuration.md"]
    for path in plugin_files(ROOT / "conf"):
        section = page.partition(f"### `{path.parent.name}={path.stem}`\n")[2].partition("\n### ")[0]
        missing = [name for name in options(target(path)) if f"| `{path.parent.name}.{name}` |" not in section]
        assert missing == [], path


def test_every_public_name_and_command_is_there(pages: dict[str, str]) -> None:
    assert [name for name in percasym._HOMES if f"## `percasym.{name}`\n" not in pages["python.md"]] == []
    commands = ("train", "demo", "audit", "plan", "report", "compare", "status", "evaluate", "export", "rollouts", "gallery", "show")
    assert [name for name in commands if f"## `percasym {name}`\n" not in pages["commands.md"]] == []
    assert "| `--samples N` |" in pages["commands.md"]
