"""Whether a separate sampler holds the weights of the trainer: probes of every weight, and log-probabilities of rollouts.

Log-probabilities alone cannot tell stale weights from rounding: a vision tower moved by 10 % of its spread changes them by 1e-4 to 4e-3
nats. So each weight is probed, on both sides, after each refresh: a matrix W by W x for a fixed vector x of signs, computed by the layer
that serves (fused, packed or tied as it is), a vector by its values. Every vector of the trainer must occur in a layer of the sampler, and
every layer of the sampler must consist of such vectors. Layers are matched by content, so their names and fusion do not matter.

A probe costs one read of each weight. It detects a change of a matrix above the rounding of the sampler's type.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from percasym.models.base import Family
from percasym.models.mode import evaluating
from percasym.types import Rollout

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
"""Largest difference of two probes in units of their root mean square: the last bits of a sum of products in this type."""
KEY = 4
"""Leading elements of a vector that select the places where the whole of it is compared."""

Kind = tuple[str, int]
"""("matrix", input width) or ("vector", 0): what can be compared with each other."""


@dataclass(slots=True)
class Probes:
    """Probe vectors of one side, by kind and name."""

    dtype: torch.dtype
    """Type in which the sampler holds its weights; the trainer's are rounded to it."""
    found: dict[Kind, dict[str, Tensor]] = field(default_factory=lambda: defaultdict(dict))

    def weights(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Pass on the weights of the trainer, each probed."""
        for name, weight in weights:
            self.add(name, weight)
            yield name, weight

    @torch.no_grad()
    def add(self, name: str, weight: Tensor) -> None:
        """Probe a weight of the trainer; a convolution as a matrix. Stacked experts (three axes) are not probed: samplers permute them."""
        rounded = weight.detach().to(self.dtype).squeeze()
        if rounded.ndim > 3:
            rounded = rounded.flatten(1)
        if rounded.ndim == 2:
            self.found["matrix", rounded.shape[1]][name] = (rounded.float() @ signs(rounded.shape[1], rounded.device)).cpu()
        elif rounded.ndim == 1:
            self.found["vector", 0][name] = rounded.float().cpu()

    @classmethod
    @torch.no_grad()
    def of_served(cls, module: nn.Module, dtype: torch.dtype) -> Probes:
        """The probes of a serving model: what each layer computes, whatever it has made of its weights."""
        probes = cls(dtype)
        for name, layer in module.named_modules():
            method, own = getattr(layer, "quant_method", None), dict(layer.named_parameters(recurse=False))
            width = getattr(layer, "input_size_per_partition", None) or getattr(layer, "embedding_dim", None)
            if method is not None and hasattr(method, "apply") and isinstance(width, int) and "weight" in own:
                x = signs(width, own["weight"].device).to(dtype)
                probes.found["matrix", width][f"{name}.weight"] = method.apply(layer, x[None]).flatten().float().cpu()
                del own["weight"]
            for part, parameter in own.items():
                probes.add(f"{name}.{part}", parameter)
        return probes

    def mismatches(self, served: Probes) -> Sequence[str]:
        """Names of the trainer's weights that no served layer has, and of served layers that hold something else."""
        return [
            name
            for kind in self.found | served.found
            for name in _unmatched(self.found.get(kind, {}), served.found.get(kind, {}), TOLERANCE[self.dtype])
        ]


def signs(width: int, device: torch.device) -> Tensor:
    """[width] float32 of random signs, the same for each width: exact in every type."""
    generator = torch.Generator().manual_seed(width)
    return (torch.randint(2, (width,), generator=generator) * 2.0 - 1.0).to(device)


def _unmatched(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float) -> list[str]:
    """Vectors of `ours` that no vector of `theirs` contains, and vectors of `theirs` that contain none of `ours`."""
    long = torch.cat([*theirs.values(), torch.full((KEY,), torch.nan)])
    starts = torch.tensor([0, *(len(vector) for vector in theirs.values())]).cumsum(0)
    covered = torch.zeros(len(long), dtype=torch.bool)
    found: dict[bytes, bool] = {}  # Gains of one and biases of zero occur often, and a constant has as many places as there are such.
    missing = []
    for name, vector in ours.items():
        content = vector.numpy().tobytes()
        if content not in found:
            places = _places(long, vector, tolerance * max(vector.square().mean().sqrt().item(), 1e-6))
            for at in places:
                covered[at : at + len(vector)] = True
            found[content] = bool(places)
        if not found[content]:
            missing.append(name)
    alien = [
        name
        for name, first, last in zip(theirs, starts[:-1].tolist(), starts[1:].tolist(), strict=True)
        if last > first and not covered[first]
    ]
    return missing + alien


def _places(long: Tensor, vector: Tensor, bound: float) -> list[int]:
    """Where `vector` begins in `long`: no element differs by more than `bound`."""
    key = vector[:KEY]
    places = ((long.unfold(0, len(key), 1) - key).abs() <= bound).all(1).nonzero().flatten().tolist()
    return [at for at in places if at + len(vector) <= len(long) and bool(((long[at : at + len(vector)] - vector).abs() <= bound).all())]


@torch.inference_mode()
def logprob_gap(model: PreTrainedModel, family: Family, rollouts: Sequence[Rollout], temperature: float) -> float:
    """Mean |difference|, in nats per token, of the log-probabilities of rollouts from those of `model`; one forward for each rollout."""
    trunk, head, device = model.get_submodule("model"), model.get_submodule("lm_head"), next(model.parameters()).device
    gaps = []
    with evaluating(model):
        for rollout in rollouts:
            prompt, completion = family.prompt(rollout.prompt), rollout.completion
            assert completion.logprobs is not None, "a rollout engine gives the log-probability of each token"
            row = prompt.followed_by(completion.ids, rollout.labels)
            hidden = trunk(**family.collate([row]).to(device).arguments, use_cache=False).last_hidden_state  # [1, T, D]
            logprobs = (head(hidden[0, len(prompt.ids) - 1 : -1]).float() / temperature).log_softmax(-1)  # [N, V]
            own = logprobs.gather(1, torch.tensor(completion.ids, device=device)[:, None])[:, 0]
            gaps.append((own - torch.tensor(completion.logprobs, device=device)).abs())
    return torch.cat(gaps).mean().item()
