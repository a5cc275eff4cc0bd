"""The RL loop: gradients of mixed, routed and balanced rewards, logged metrics, and resuming."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from percasym.balance.fixed import Fixed
from percasym.balance.gradnorm import GradNorm
from percasym.balance.inverse_loss import InverseLoss
from percasym.balance.ngdiff import NGDiff
from percasym.balance.none import NoBalance
from percasym.balance.saw import Saw
from percasym.balance.staged import Staged
from percasym.config.paradigm import Rl
from percasym.models.base import Batch
from percasym.training.divergence import TrainingDivergedError, load_batches
from percasym.training.grpo import reward_losses, train
from percasym.training.progress import TrainingState
from percasym.training.rollout_batch import MicroBatch, RolloutBatch
from percasym.types import UNSUPERVISED, Span
from tests.unit.training.fakes import FakeRun, OneNumber

P, R = Span.perception, Span.reasoning


class Tilt(OneNumber):
    """Every token of rollout i has log-probability x * slope[i] - 1."""

    def __init__(self, hidden_norms, x=0.0) -> None:
        super().__init__(x)
        self.hidden_norms = torch.tensor(hidden_norms)

    def nll(self, batch):
        return (1 - self.x * self.hidden_norms[batch.ids[:, :1]]) * (batch.labels != UNSUPERVISED)

