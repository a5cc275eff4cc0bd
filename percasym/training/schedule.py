"""The learning rate of every step."""

from __future__ import annotations

import math

from percasym.config.paradigm import Training


def learning_rate(settings: Training, step: int) -> float:
    """Learning rate of the update that follows `step` updates: a linear rise, then half a cosine.

    The rise never starts at zero (the first update counts), the last update has exactly `final_lr_frac` of the peak.

    >>> settings = Training(steps=5, batch_size=1, micro_batch_size=1, lr=1.0, warmup_frac=0.4, final_lr_frac=0.1)
    >>> [round(learning_rate(settings, step), 3) for step in range(5)]
    [0.5, 1.0, 0.775, 0.325, 0.1]
    """
    warmup = round(settings.warmup_frac * settings.steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    done = (step + 1 - warmup) / (settings.steps - warmup)
    low = settings.final_lr_frac
    return settings.lr * (low + (1 - low) * (1 + math.cos(math.pi * done)) / 2)
