"""Where DeepSpeed's ZeRO optimizers keep this rank's part of the gradient: the only file that knows (read in 0.19.8).

Of the optimizer of stages 1 and 2 and of that of stage 3 it relies on, for each of their parameter groups i:

- the master weights that AdamW updates, flat, this rank's part: `single_partition_of_fp32_groups[i]`, `fp32_partitioned_groups_flat[i]`;
- their reduced gradient: `averaged_gradients[i]`, tensors that `step` concatenates, or with offload the masters' own `.grad`;
- what fills it from the backward passes so far: `reduce_gradients()` in stage 1, `finalize_gradient_accumulation_boundary()` in 2 and 3;
- `step()`, called directly: the engine's own would reduce again what was set aside and put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from percasym.engine.optimizer import set_lr
from percasym.engine.span_gradients import Parts


class ZeroUpdater:
    """Every rank holds, updates and remembers its own part of the model, one flat tensor for each group."""

    split = True

    def __init__(self, zero: Any, optimizer: Optimizer, *, stage: int, offload: bool) -> None:
        """`zero` is what `deepspeed.initialize` made around `optimizer`."""
        self._zero, self._optimizer, self._stage, self._offload = zero, optimizer, stage, offload
        self._masters: Sequence[Tensor] = zero.fp32_partitioned_groups_flat if stage == 3 else zero.single_partition_of_fp32_groups
        self._open: list[Tensor] | None = None

    @torch.no_grad()
    def gradient(self) -> Parts:
        """This rank's part of the open gradient, reduced over ranks."""
        if self._open is None:
            self._finalize()
            averaged = self._zero.averaged_gradients
            flat = self._buffers() if self._offload else [torch.cat([part.flatten() for part in averaged[i]]) for i in self._groups]
            self._set(flat)
        assert self._open is not None
        return self._open

    @torch.no_grad()
    def take(self) -> Parts:
        """The same for the caller to keep; an empty gradient is open afterwards."""
        parts = self.gradient()
        if self._offload:  # The buffers stay with DeepSpeed.
            parts = [part.clone() for part in parts if part is not None]
        self._forget()
        return parts

    @torch.no_grad()
    def put(self, parts: Parts) -> None:
        """Open a gradient that is summed already."""
        assert self._open is None, "a gradient is still open"
        summed = [part for part in parts if part is not None]
        if self._offload:
            for buffer, part in zip(self._buffers(), summed, strict=True):
                buffer.copy_(part)
            summed = self._buffers()
        self._set(summed)

    def apply(self, lr: float) -> None:
        """One step of the optimizer on the masters, and from there to the weights of all ranks."""
        self.gradient()
        set_lr(self._optimizer, lr)
        self._zero.step()
        self._zero.zero_grad()
        self._forget()

    def refresh(self) -> None:
        """Copy the model's weights to the masters."""
        self._zero.refresh_fp32_params()

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state of this rank's part."""
        self._assign()
        state = self._optimizer.state_dict()
        self._unassign()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self._assign()
        self._optimizer.load_state_dict(state)
        self._unassign()

    @property
    def _groups(self) -> range:
        return range(len(self._masters))

    def _buffers(self) -> list[Tensor]:
        return [master.grad for master in self._masters if master.grad is not None]

    def _set(self, flat: list[Tensor]) -> None:
        """Open this gradient, where `step` finds it."""
        if not self._offload:
            self._zero.averaged_gradients = {i: [part] for i, part in enumerate(flat)}
        self._open = flat

    def _finalize(self) -> None:
        """Reduce, or collect, what the backward passes left."""
        if self._stage == 1:
            self._zero.set_gradient_accumulation_boundary(True)
            self._zero.reduce_gradients()
        else:
            self._zero.finalize_gradient_accumulation_boundary()
        if self._offload and torch.cuda.is_available():
            torch.cuda.synchronize()  # The copies into the masters' gradients do not wait for each other.

    def _forget(self) -> None:
        """Leave nothing of past backward passes: the next one begins a sum."""
        if self._stage == 3:
            self._zero.zero_grad()  # The next backward pass overwrites ...
            self._zero.grad_partitions_flat_buffer.zero_()  # ... and what it does not reach is zero, not old.
            self._zero._offload_boundary_param_ids = set()
        else:
            self._zero.micro_step_id = -1
            self._zero._offload_accumulated_param_ids = set()
        if self._offload:
            for buffer in self._buffers():
                buffer.zero_()
        else:
            self._zero.averaged_gradients = dict.fromkeys(self._groups)
        self._open = None

    def _assign(self) -> None:
        if self._stage == 3:  # Between its steps stage 3 takes the masters out of the optimizer.
            self._zero._set_fp32_optimizer_param_groups()

    def _unassign(self) -> None:
        if self._stage == 3:
            self._zero._clear_fp32_optimizer_param_groups()
