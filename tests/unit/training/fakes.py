"""An engine whose model is one number, and a run in memory: what the loops of SFT and RL are tested with."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import torch

from percasym.balance.base import Gramian
from percasym.engine.base import StepInfo
from percasym.runs.requests import Requests
from percasym.types import Span


class OneNumber:
    """The gradients and updates of an engine with one number x as its model; a loop's own fake adds its losses."""

    rank, num_ranks = 0, 1

    def __init__(self, x: float) -> None:
        self.x = torch.tensor(x, requires_grad=True)
        self.kept: dict[Span, torch.Tensor] = {}
        self.grads: list[float] = []

    def backward(self, loss):
        loss.backward()

    def share_vision(self):
        return nullcontext(lambda keys: nullcontext())

    def keep_gradient(self, span):
        self.kept[span], self.x.grad = self.x.grad, None

    def gramian(self):
        p, r = float(self.kept[Span.perception]), float(self.kept[Span.reasoning])
        return Gramian(perception=p * p, reasoning=r * r, cross=p * r)

    def combine(self, weights):
        self.x.grad = sum(weights[span] * self.kept.pop(span) for span in Span)

    def all_reduce_sum(self, values):
        return values

    def step(self, lr):
        self.grads.append(float(self.x.grad))
        with torch.no_grad():
            self.x -= lr * self.x.grad
        self.x.grad = None
        return StepInfo(grad_norm=abs(self.grads[-1]), lr=lr)

    def save(self, directory):
        torch.save(self.x.detach(), directory / "x.pt")


class WordWeights:
    """The weights of an engine as words: which form of them is given to whom."""

    @contextmanager
    def gathered_weights(self):
        yield "whole"

    @contextmanager
    def partitioned_weights(self):
        yield "parts", "gather"


class FakeRun:
    """A run that keeps log lines, warnings, bar updates and steps of checkpoints in memory; checkpoints are written with `keep` only."""

    def __init__(self, path=None, *, keep=False) -> None:
        self.path, self.keep, self.requests = path, keep, Requests()
        self.lines, self.shown, self.warnings, self.checkpoints, self.bar = {}, [], [], [], None

    def log(self, step, values):
        self.lines[step] = dict(values)

    def warn(self, sentence):
        self.warnings.append(sentence)

    @contextmanager
    def progress(self, total, title, start=0):
        self.bar = (total, title, start)
        yield SimpleNamespace(advance=lambda step, **shown: self.shown.append((step, shown)))

    def settle(self):
        pass

    def checkpoint(self, step, save):
        self.checkpoints.append(step)
        if self.keep:
            (self.path / str(step)).mkdir()
            save(self.path / str(step))
