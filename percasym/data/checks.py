"""Collected rows checked against the chosen model before training, so that none ends the run in the middle."""

from __future__ import annotations

from dataclasses import replace

from percasym.config.schema import ConfigError
from percasym.config.settings import Settings


def with_checked_rows(settings: Settings) -> Settings:
    """The settings with a task that refuses or skips (`task.on_error`) rows that the model cannot take, when its rows are read.

    Raises ConfigError for a checkpoint that cannot be read.
    """
    try:
        return replace(settings, task=settings.task.checked(settings.family.limits()))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def data_fingerprint(settings: Settings) -> str | None:
    """The fingerprint of the collected rows that a run of these settings trains on; None for generated samples.

    Reads all rows. Raises ConfigError for a bad one.
    """
    try:
        about = with_checked_rows(settings).task.about()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return None if about is None else about["fingerprint"]
