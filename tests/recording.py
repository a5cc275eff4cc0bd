"""A run that writes no file: the numbers that a training loop logs, in a list."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

from percasym.runs.requests import Requests


class Record:
    """A run that keeps its numbers in a list."""

    def __init__(self) -> None:
        self.requests = Requests()
        self.values: list[dict[str, float]] = []

    def log(self, step, values):
        self.values.append(dict(values))

    def progress(self, total, title, start=0):
        return nullcontext(SimpleNamespace(advance=lambda step, **shown: None))

    def checkpoint(self, step, save):
        pass

    def settle(self):
        pass
