"""Where a result came from: the code's commit, the versions under it, the command that asked for it.

The environment is never read: it is where secrets live.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("percasym", "torch", "transformers", "deepspeed", "numpy", "pillow")
"""Packages whose version can move a number."""


def provenance() -> dict[str, Any]:
    """`git` and `dirty` (None outside a checkout of percasym), `versions`, `argv`."""
    root = Path(__file__).resolve().parents[2]
    commit, dirty = _git(root)
    return {"git": commit, "dirty": dirty, "versions": _versions(), "argv": list(sys.argv)}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # An optional package that is not installed cannot move a number.
    return found


def _git(root: Path) -> tuple[str | None, bool | None]:
    """Commit and dirtiness of the checkout whose top is `root`; an enclosing foreign repository does not count."""
    top = _ask_git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != root:
        return None, None
    changes = _ask_git(root, "status", "--porcelain")
    return _ask_git(root, "rev-parse", "HEAD"), None if changes is None else bool(changes)


def _ask_git(root: Path, *question: str) -> str | None:
    try:
        answer = subprocess.run(["git", *question], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
