"""multirun/<study>/study.json: the cells that a sweep was started with, and why those failed that never had a run directory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from percasym.config.files import read_json, unfit
from percasym.config.redaction import redacted_words
from percasym.config.schema import ConfigError, read
from percasym.runs.records import document, write_whole

STUDY = "study.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One run of a study."""

    name: str
    """Its directory below that of the study."""
    words: tuple[str, ...]
    """Its command-line words."""
    reason: str | None = None
    """Why the last attempt failed; None where it did not fail, or there was none."""


def read_study(folder: Path) -> tuple[Planned, ...]:
    """The cells of the study in `folder`, in the order in which they were added; empty where no sweep was started there.

    Raises ConfigError when study.json cannot be read.
    """
    file = folder / STUDY
    try:
        cells = read_json(file)["cells"] if file.exists() else {}
        return tuple(read({"name": name, **about}, Planned, "cells") for name, about in cells.items())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{unfit(file, 'is not as a sweep writes it', error)} Delete it: the next sweep writes it anew.") from error


def add_to_study(folder: Path, cells: Iterable[Planned]) -> None:
    """Add `cells` to the study in `folder`, replacing those of the same name."""
    by_name = {cell.name: cell for cell in (*read_study(folder), *cells)}
    folder.mkdir(parents=True, exist_ok=True)
    held = {name: {"words": redacted_words(cell.words), "reason": cell.reason} for name, cell in by_name.items()}
    write_whole(folder / STUDY, document({"cells": held}))
