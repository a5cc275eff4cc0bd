"""The files of an engine in a checkpoint: the weights as a Hugging Face directory; optimizer and random states, one file for each rank.

    model/  engine.pt  engine_rank1.pt  engine_rank2.pt ...

Where all ranks hold the same optimizer state, rank 0 writes it alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from percasym.config.files import UnfitFileError
from percasym.config.schema import ConfigError
from percasym.engine.base import Updater
from percasym.engine.ranks import Ranks
from percasym.models.adapt import saved_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "model"


def save_weights(directory: Path, model: PreTrainedModel) -> None:
    """Write `model/`: config and safetensors; for a model with adapters, only the adapters."""
    model.save_pretrained(directory / WEIGHTS)


def read_weights(directory: Path, model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights or adapters in `model/`, by the names of the parameters of a model of the same shapes.

    Raises ConfigError when they cannot be read.
    """
    with _readable(directory / WEIGHTS):
        return saved_tensors(model, directory / WEIGHTS)


@torch.no_grad()
def load_weights(directory: Path, model: PreTrainedModel) -> None:
    """Load the weights or adapters in `model/` into a model that is whole on this rank. Raises ConfigError when they cannot be read."""
    parameters = dict(model.named_parameters())
    for name, value in read_weights(directory, model).items():
        parameters[name].copy_(value)


def save_state(directory: Path, ranks: Ranks, updater: Updater) -> None:
    """Write this rank's file."""
    state: dict[str, Any] = {"num_ranks": ranks.num_ranks, "random": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        state["random_device"] = torch.cuda.get_rng_state(ranks.device)
    if updater.split or ranks.rank == 0:
        state["optimizer"] = updater.state_dict()
    torch.save(state, directory / _file(ranks.rank))


def read_state(directory: Path, ranks: Ranks, updater: Updater) -> dict[str, Any]:
    """The state that `save_state` wrote for this rank.

    Only tensors and plain values are unpickled (`weights_only`); anything else is refused.
    Raises FileNotFoundError when `directory` is no checkpoint, ConfigError when it has another number of ranks or cannot be read.
    """
    if not (directory / _file(0)).is_file():
        raise FileNotFoundError(f"{directory} holds no {_file(0)}, so it is not a checkpoint of a run.")
    first = _read(directory / _file(0), "optimizer")
    written = first.get("num_ranks", 1)
    if written != ranks.num_ranks:
        found = f"{directory} was written by {written} processes, and this run has {ranks.num_ranks}"
        raise ConfigError(f"{found}. Resume with {written} (launch.nproc times launch.nnodes), or begin again with run.overwrite=true.")
    own = first if ranks.rank == 0 else _read(directory / _file(ranks.rank), *["optimizer"] * updater.split)
    return own if updater.split else {**own, "optimizer": first["optimizer"]}


def load_state(state: dict[str, Any], updater: Updater) -> None:
    """Restore the optimizer state and this rank's random state."""
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
    except UnfitFileError as error:
        raise ConfigError(f"{error} Without {path.parent}, the run goes on from before it.") from error
    except Exception as error:  # torch, safetensors and transformers raise many types for a damaged file.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise ConfigError(f"{path} cannot be read ({reason}). Without {path.parent}, the run goes on from before it.") from error


def num_bytes(model: PreTrainedModel) -> int:
    """Approximate bytes that `save` writes on all ranks: weights (or adapters) and AdamW's two moments of those trained, all float32."""
    sizes = [
        (getattr(each, "ds_numel", each.numel()), each.requires_grad) for each in model.parameters()
    ]  # Under ZeRO-3 a tensor is empty and `ds_numel` is its size.
    trainable = sum(size for size, trained in sizes if trained)
    written = trainable if getattr(model, "_hf_peft_config_loaded", False) else sum(size for size, _ in sizes)
    return 4 * (written + 2 * trainable)


def _file(rank: int) -> str:
    return f"engine_rank{rank}.pt" if rank else "engine.pt"
