"""The files of an engine in a checkpoint: the weights as a Hugging Face directory; optimizer and random states, one file for each rank.

    model/  engine.pt  engine_rank1.pt  engine_rank2.pt ...

Where all ranks hold the same optimizer state, rank 0 writes it alone. Beside it lies its layout, by which any number of ranks can read it.
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
from percasym.engine.partition import Layout, repartitioned
from percasym.engine.ranks import Ranks
from percasym.models.adapt import saved_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "model"
MAX_RANKS = 100_000
"""More processes are taken for damage."""


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
        state |= {"optimizer": updater.state_dict(), "layout": _plain(updater.layout()), "split": updater.split}
    torch.save(state, directory / _file(ranks.rank))


def read_state(directory: Path, ranks: Ranks, updater: Updater) -> dict[str, Any]:
    """The state that `save_state` wrote for this rank; on another number of ranks, its part of the states of all.

    A rank beyond those that wrote gets no random state. Only tensors and plain values are unpickled (`weights_only`); anything else is
    refused. Raises FileNotFoundError when `directory` is no checkpoint, ConfigError when it cannot be read.
    """
    if not (directory / _file(0)).is_file():
        raise FileNotFoundError(f"{directory} holds no {_file(0)}, so it is not a checkpoint of a run.")
    first = _read(directory / _file(0), "optimizer")
    written, split = first.get("num_ranks", 1), first.get("split", updater.split)
    if not isinstance(written, int) or not 0 < written <= MAX_RANKS:
        raise ConfigError(f"{directory / _file(0)} cannot be read: it gives {written!r} as the number of processes. Restore it.")
    own = _read(directory / _file(ranks.rank), *["optimizer"] * split) if ranks.rank < written else {}
    source, layout = own if split else first, _plain(updater.layout())
    if (written == ranks.num_ranks or not split) and source.get("layout", layout) == layout:
        return {**own, "optimizer": source["optimizer"]}
    if "layout" not in first:
        found = f"{directory} was written by {written} processes of an earlier version, and this run has {ranks.num_ranks}"
        raise ConfigError(f"{found}. Resume with {written} (launch.nproc times launch.nnodes), or begin again with run.overwrite=true.")
    others = [_read(directory / _file(rank), "optimizer", "layout") for rank in range(1, written)] if split else []
    with _readable(directory / _file(0)):
        shares = [(share["layout"], share["optimizer"]) for share in (first, *others)]
        return {**own, "optimizer": repartitioned(shares, updater.layout(), updater.tensors(), updater.state_dict())}


def load_state(state: dict[str, Any], updater: Updater) -> None:
    """Restore the optimizer state and this rank's random state, where there is one."""
    updater.load_state_dict(state["optimizer"])
    if "random" in state:
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
    return weight_bytes(model, 4) + 2 * 4 * sum(size for size, trained in _sizes(model) if trained)


def weight_bytes(model: PreTrainedModel, itemsize: int) -> int:
    """Approximate bytes of the weights of a model (of its adapters only, where it has some), at so many bytes each."""
    adapters = getattr(model, "_hf_peft_config_loaded", False)
    return itemsize * sum(size for size, trained in _sizes(model) if trained or not adapters)


def _sizes(model: PreTrainedModel) -> list[tuple[int, bool]]:
    """Elements of each parameter, and whether it is trained. Under ZeRO-3 a tensor is empty and `ds_numel` is its size."""
    return [(getattr(each, "ds_numel", each.numel()), each.requires_grad) for each in model.parameters()]


def _plain(layout: Layout) -> list[list[tuple[str, int, int, int]]]:
    return [[(piece.name, piece.start, piece.numel, piece.offset) for piece in pieces] for pieces in layout]


def _file(rank: int) -> str:
    return f"engine_rank{rank}.pt" if rank else "engine.pt"
