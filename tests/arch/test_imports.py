"""The import rules of docs/architecture.md, and proof that each check can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "deepspeed", "vllm", "wandb")
LIGHT = (
    "types", "metrics", "config", "spans", "tasks", "balance", "runs", "diagnosis", "report", "cli", "models", "data", "plan", "rewards",
    "dashboard",
)  # fmt: skip
"""Folders used on a laptop, by `--help` and to regrade: importing their modules loads no deep-learning library."""
WORKERS = ("percasym.models.architecture", "percasym.models.qwen3", "percasym.models.qwen3_copy")
"""Modules inside those folders that need a deep-learning library."""


def modules(room: str) -> list[str]:
    path = ROOT / "percasym" / room
    files = [path.with_suffix(".py")] if not path.is_dir() else sorted(path.rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [name for name in names if name not in WORKERS]


def fresh(folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """These lines of Python in a process of their own that finds modules in `folder` first."""
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False)


def heavy_after_importing(names: list[str], *, folder: Path = ROOT) -> list[str]:
    """The heavy libraries that are loaded once `names` are."""
    done = fresh(folder, f"import {', '.join(names)}, sys", f"print(*(set({HEAVY!r}) & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter's verdict on the package in `folder`."""
    begin = "import sys; sys.argv = ['lint-imports', '--no-cache']"
    return fresh(folder, begin, "from importlinter.cli import lint_imports_command as main", "main()")


def test_light_rooms_load_no_deep_learning_library() -> None:
    names = [name for room in LIGHT for name in modules(room)]
    assert len(names) > 30, "the rooms are found"
    assert heavy_after_importing(names) == []


def test_a_planted_import_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "planted.py").write_text("import torch\n")
    assert heavy_after_importing(["planted"], folder=tmp_path) == ["torch"]


def test_imports_run_downward() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("where", "line", "contract"),
    [
        ("spans/grammar.py", "import percasym.tasks.base", "Imports run downward"),
        ("app/run.py", "import omegaconf", "Typed Python begins at resolve()"),
        ("report/tables.py", "import torch", "What runs on a laptop in seconds has no deep-learning library"),
        ("training/sft.py", "import percasym.balance.ngdiff", "Trainers know protocols only"),
    ],
)
def test_an_import_upward_is_noticed(tmp_path: Path, where: str, line: str, contract: str) -> None:
    for path in (ROOT / "percasym").rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "percasym" / where).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout


def too_long(package: Path) -> list[str]:
    """Files of more than 400 lines that do not say why."""
    texts = {str(path.relative_to(package)): path.read_text() for path in package.rglob("*.py")}
    return [name for name, text in texts.items() if len(text.splitlines()) > 400 and "One file, because" not in text]


def test_a_file_above_400_lines_says_why(tmp_path: Path) -> None:
    assert too_long(ROOT / "percasym") == [], "a file holds one idea: split it, or say in its docstring 'One file, because ...'"
    for folder, lines in (("one", 401), ("other", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "audit.py").write_text("pass\n" * lines)
    assert too_long(tmp_path) == ["one/audit.py"]
