"""An engine on disk: the weights once, as a Hugging Face directory; optimizer and random state, a file for each rank.

    model/  engine.pt  engine_rank1.pt  engine_rank2.pt ...

Where all ranks hold the same optimizer state, rank 0 writes it alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from percasym.config.schema import ConfigError
from percasym.engine.base import Updater
from percasym.engine.ranks import Ranks
from percasym.models.adapt import restore

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "model"


def save_weights(directory: Path, model: PreTrainedModel) -> None:
    """Write `model/`: config and safetensors; of a model with adapters, these alone."""
    model.save_pretrained(directory / WEIGHTS)


def load_weights(directory: Path, model: PreTrainedModel) -> None:
    """Copy the weights of `model/`, or its adapters, into a model of the same shapes. Raises ConfigError when they cannot be read."""
    with _readable(directory / WEIGHTS):
        restore(model, directory / WEIGHTS)


def save_state(directory: Path, ranks: Ranks, updater: Updater) -> None:
    """Write this rank's file."""
    state: dict[str, Any] = {"num_ranks": ranks.num_ranks, "random": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        state["random_device"] = torch.cuda.get_rng_state(ranks.device)
    if updater.split or ranks.rank == 0:
        state["optimizer"] = updater.state_dict()
    torch.save(state, directory / _file(ranks.rank))


def read_state(directory: Path, ranks: Ranks, updater: Updater) -> dict[str, Any]:
    """What `save_state` wrote for this rank.

    Only tensors and plain values are read: a pickle of anything else is refused, and nothing in it is called.
    Raises FileNotFoundError when `directory` is no checkpoint, ConfigError when it is one of another number of ranks, or cannot be read.
    """
    if not (directory / _file(0)).is_file():
        raise FileNotFoundError(f"{directory} holds no {_file(0)}, so it is not a checkpoint of a run.")
    first = _read(directory / _file(0), "optimizer")
    wrote = first.get("num_ranks", 1)
    if wrote != ranks.num_ranks:
        found = f"{directory} was written by {wrote} processes, and this run has {ranks.num_ranks}"
        raise ConfigError(f"{found}. Resume with {wrote} (launch.nproc times launch.nnodes), or begin again with run.overwrite=true.")
    own = first if ranks.rank == 0 else _read(directory / _file(ranks.rank), *["optimizer"] * updater.split)
    return own if updater.split else {**own, "optimizer": first["optimizer"]}


def load_state(state: dict[str, Any], updater: Updater) -> None:
    """Restore the optimizer and this rank's random state."""
    updater.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    if "random_device" in state:
        torch.cuda.set_rng_state(state["random_device"])


def _read(file: Path, *keys: str) -> dict[str, Any]:
    with _readable(file):
        state = dict(torch.load(file, map_location="cpu", weights_only=True, mmap=True))
        if missing := {"random", *keys} - state.keys():
            raise ValueError(f"it lacks {min(missing)}")
        return state


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch, safetensors and transformers raise many types for one cause: what lies there is not what we wrote.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise ConfigError(f"{path} cannot be read ({reason}). Without {path.parent}, the run goes on from before it.") from error


def num_bytes(model: PreTrainedModel) -> int:
    """About what `save` writes on all ranks: weights (of a model with adapters, these alone), and AdamW's two moments of those that learn.

    All are float32.
    """
    sizes = [(getattr(each, "ds_numel", each.numel()), each.requires_grad) for each in model.parameters()]  # ZeRO-3 empties its tensors.
    learning = sum(size for size, learns in sizes if learns)
    written = learning if getattr(model, "_hf_peft_config_loaded", False) else sum(size for size, _ in sizes)
    return 4 * (written + 2 * learning)


def _file(rank: int) -> str:
    return f"engine_rank{rank}.pt" if rank else "engine.pt"
