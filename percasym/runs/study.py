"""What a study consists of, beside its run directories: the cells that a sweep was asked for, and those that failed before they had one.

multirun/<study>/study.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from percasym.config.schema import ConfigError, read
from percasym.runs.records import document, write_whole

STUDY = "study.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One run that a study asks for."""

    name: str
    """Its directory below that of the study."""
    words: tuple[str, ...]
    """What the command line says of it."""
    reason: str | None = None
    """Why the last attempt failed; None where it did not, or has not been made."""


def read_study(folder: Path) -> tuple[Planned, ...]:
    """The cells of the study in `folder`, in the order of their first mention; none where no sweep has begun there.

    Raises ConfigError when they cannot be read.
    """
    file = folder / STUDY
    try:
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"] if file.exists() else {}
        return tuple(read({"name": name, **about}, Planned, "cells") for name, about in cells.items())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file} is not as a sweep writes it ({error}). Delete it: the next sweep writes it anew.") from error


def enter(folder: Path, cells: Iterable[Planned]) -> None:
    """Add `cells` to the study in `folder`; of one that is known already, the new word counts."""
    known = {cell.name: cell for cell in (*read_study(folder), *cells)}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / STUDY, document({"cells": {name: {"words": cell.words, "reason": cell.reason} for name, cell in known.items()}}))
