"""One vLLM engine in the process of the trainer: started from the checkpoint, refreshed with the weights of the model in training.

Unlike a server beside the trainer, it shares the process and the GPU: weights are passed as tensors, one at a time, and leave the GPU
between rounds (`rollout.sleep`). A process can hold one engine, which rollouts and evaluations share.

After each refresh every weight is compared with the trainer's (`percasym.rollout.agreement`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from percasym.config.sampling import Precision, Vllm
from percasym.config.schema import ConfigError
from percasym.models import checkpoint
from percasym.rollout.agreement import Probes
from percasym.rollout.base import Gather

VERSIONS = ((0, 30), (0, 31))
"""The vLLM releases that work, from and below: 0.30 was tested (`make test-vllm`); 0.31 to 0.33 require transformers below 5.21, and this
package needs 5.23."""
BASE_LAYER = ".base_layer."
"""Where peft keeps the layer under an adapter."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # A separate process could not read the trainer's tensors.
    "VLLM_LOGGING_LEVEL": "ERROR",  # 280 lines of information would bury the progress bar.
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # vLLM would pin the trainer's threads to its own choice of cores.
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; by default half of the machine's memory.
}
"""Defaults of vLLM's environment; a variable that is set stays, except the first, which cannot be another."""


USE_NATIVE = "Use rollout=native and evaluation.engine=native."
"""What to do where vLLM, which rollouts and evaluations may share, is not the model in training."""


class VllmMismatchError(RuntimeError):
    """vLLM does not sample from the model in training: other weights, or another prompt."""


@dataclass(slots=True, kw_only=True)
class VllmEngine:
    """vLLM with the weights of the last `refresh`."""

    options: Vllm
    max_new_tokens: int
    """Of the longest completion that will be asked for."""
    logprobs_mode: str = "raw_logprobs"
    num_ranks: int = 1
    _llm: Any = field(default=None, init=False, repr=False)
    _asleep: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise ConfigError without vLLM, with a release that was not tested, or for ranks that `tensor_parallel` does not divide."""
        vllm()
        if self.num_ranks % self.options.tensor_parallel:
            raise ConfigError(
                f"rollout.tensor_parallel={self.options.tensor_parallel} does not divide the {self.num_ranks} ranks, which vLLM runs on. "
                "Choose a divisor, or raise launch.nproc."
            )

    @property
    def dtype(self) -> torch.dtype:
        """The type in which vLLM holds its weights and computes."""
        return served_dtype(self.options.precision)

    def refresh(self, model: PreTrainedModel, gather: Gather | None = None) -> None:
        """Copy the weights of `model` into vLLM and reset its caches; `gather` completes a parameter that ZeRO-3 has partitioned.

        Raises VllmMismatchError when a weight of vLLM was not loaded, or differs from the trainer's afterwards.
        """
        if self._llm is None:
            with quiet(), same_random_state():
                self._llm = self._started(model)
        elif self._asleep:
            self._llm.wake_up(tags=["weights"])
        probes = Probes(self.dtype)
        with quiet():
            reload_weights(self._llm, probes.weights(merged_weights(model, gather)))
        self._check(probes)
        if self._asleep:
            self._llm.wake_up(tags=["kv_cache"])
            self._asleep = False
        self._llm.reset_prefix_cache()
        self._llm.llm_engine.reset_encoder_cache()  # Features of cached pictures come from the old vision tower.

    def release(self) -> None:
        """Move vLLM's weights to the host and free its cache until the next `refresh`, where the platform and the options allow it."""
        if self._llm is not None and self._sleeps and not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = True

    def generate(self, requests: Sequence[dict[str, Any]], parameters: Sequence[Any]) -> list[Any]:
        """vLLM's answers, in the order of the requests."""
        assert self._llm is not None and not self._asleep, "refresh comes before generate"
        return self._llm.generate(requests, parameters, use_tqdm=False)

    @property
    def _sleeps(self) -> bool:
        return self.options.sleep and torch.cuda.is_available()

    def _check(self, probes: Probes) -> None:
        """Compare every weight of both sides. Under tensor parallelism a rank holds slices, which are not compared."""
        if self.options.tensor_parallel > 1:
            return
        (served,) = self._llm.apply_model(lambda module: Probes.of_served(module, self.dtype))
        if wrong := probes.mismatches(served):
            raise VllmMismatchError(
                f"After a refresh {len(wrong)} weights of vLLM differ from the trainer's, {wrong[0]} among them. {USE_NATIVE}"
            )

    def _started(self, model: PreTrainedModel) -> Any:
        """A vLLM engine on the checkpoint of `model`; its buffers, such as an image's mean, are those of the checkpoint."""
        options = self.options
        use_trainers_images(type(checkpoint.image_processor(model.name_or_path)).__name__.removesuffix("Pil"))
        limit = model.config.get_text_config().max_position_embeddings
        parallel: dict[str, Any] = {"tensor_parallel_size": options.tensor_parallel}
        if self.num_ranks > 1:  # One engine on each `tensor_parallel` ranks, within the launched processes.
            parallel |= {"distributed_executor_backend": "external_launcher", "data_parallel_size": 1}
        return vllm().LLM(
            model=servable(model.name_or_path),
            load_format="auto",
            dtype=str(self.dtype).removeprefix("torch."),
            gpu_memory_utilization=options.gpu_memory_frac,
            max_model_len=min(limit, options.max_prompt_tokens + self.max_new_tokens),
            limit_mm_per_prompt={"image": 1, "video": 0},
            logprobs_mode=self.logprobs_mode,
            enable_sleep_mode=self._sleeps,
            enforce_eager=not torch.cuda.is_available(),  # Compiled kernels take 25 s to build on a CPU.
            enable_chunked_prefill=torch.cuda.is_available(),  # A cut prompt rewinds its generator, which on a CPU cannot be done.
            **parallel,
        )


def reload_weights(llm: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Load `weights` into the running model. Raises VllmMismatchError when vLLM found no value for one of its parameters.

    vLLM packs or fuses layers after loading, so loading goes through its `reload_weights`, which restores and repacks them. It does not
    repack a head that shares its weight with the embedding.
    """
    loaded: set[str] = set()

    def record(module: Any) -> set[str]:
        names, load = {name for name, _ in module.named_parameters()}, module.load_weights

        def recording(iterator: Iterable[tuple[str, Tensor]]) -> set[str]:
            loaded.update(load(iterator))
            return loaded

        module.load_weights = recording
        return names

    def finish(module: Any) -> None:
        del module.load_weights  # The instance's; the method of the class stays.
        repack_heads(module, loaded)

    (names,) = llm.apply_model(record)
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
    llm.apply_model(finish)
    if unloaded := sorted(names - loaded):
        raise VllmMismatchError(f"vLLM found no values for {len(unloaded)} of its weights, {unloaded[0]} among them. {USE_NATIVE}")


def repack_heads(module: Any, loaded: Collection[str]) -> None:
    """Repack the heads that share their weight with the embedding: they are not among the loaded names, and keep the old packed copy."""
    for name, layer in module.named_modules():
        if name.rpartition(".")[2] == "lm_head" and f"{name}.weight" not in loaded and hasattr(layer, "quant_method"):
            layer.quant_method.process_weights_after_loading(layer)


def merged_weights(model: PreTrainedModel, gather: Gather | None = None) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every parameter, with adapters merged into them; one merged or gathered tensor exists at a time.

    Unlike merging and unmerging in place, this leaves the trained weights untouched, so they collect no rounding errors.
    """
    for name, parameter in model.named_parameters():
        layer, adapted, _ = name.partition(BASE_LAYER)
        if ".lora_" in name:
            continue
        with gather(parameter) if gather else nullcontext():
            weight = parameter.detach().clone() if gather else parameter.detach()  # A gathered parameter is emptied again.
        if adapted and name.endswith(".weight"):
            adapter: Any = model.get_submodule(layer)
            with contextlib.ExitStack() as stack:
                if gather:
                    for own in adapter.parameters():
                        stack.enter_context(gather(own))
                weight = weight.float() + sum(adapter.get_delta_weight(active).detach() for active in adapter.active_adapters)
        yield name.replace(BASE_LAYER, "."), weight


def vllm() -> Any:
    """The vllm module, imported on first use. Raises ConfigError when it is not installed, or of a release that was not tested."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        import vllm
    except ImportError as error:
        raise ConfigError(f'This needs vLLM ({error}). Run `pip install "percasym[vllm]"`, or use the native engine.') from error
    low, high = (".".join(map(str, version)) for version in VERSIONS)
    release = tuple(int(part) for part in vllm.__version__.split("+")[0].split(".")[:2] if part.isdigit())
    if not VERSIONS[0] <= release < VERSIONS[1]:
        raise ConfigError(
            f"vLLM {vllm.__version__} was not tested with percasym. Install one from {low} to below {high}, or use the native engine."
        )
    return vllm


def served_dtype(precision: Precision) -> torch.dtype:
    """The type that `precision` names; of "auto", bfloat16 where a GPU computes it natively, else float32."""
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def use_trainers_images(name: str) -> None:
    """Let vLLM load the image processor `name` on PIL, as the trainer does, where it asks transformers for torchvision's.

    The two resize differently. vLLM has no option for it: it passes a backend on to the video processor, which has no other.
    """
    from transformers.models.auto import image_processing_auto as auto

    chosen = auto._resolve_backend

    def resolve(backend: str | None, use_fast: bool | None, base_class_name: str | None) -> str:
        return "pil" if backend is None and base_class_name == name else chosen(backend, use_fast, base_class_name)

    auto._resolve_backend = resolve


@lru_cache(maxsize=4)
def servable(path: str) -> str:
    """A checkpoint that vLLM can start from: `path`, or the model under its adapters, or a folder of links with what its processor needs.

    Weights are refreshed before the first token, so those of a base model serve to start.
    """
    while checkpoint.is_adapter(path):
        path = checkpoint.adapter_base(path)
    folder = checkpoint.directory_of(path, weights=True)
    if not checkpoint.lacks_processor(folder):
        return str(folder)
    completed = Path(tempfile.mkdtemp(prefix="percasym-"))
    atexit.register(shutil.rmtree, completed, ignore_errors=True)
    for file in folder.iterdir():
        if file.name in checkpoint.PROCESSOR_FILES:  # Written by `complete_processor`.
            shutil.copy(file, completed)
        elif file.is_file():
            (completed / file.name).symlink_to(file.absolute())
    checkpoint.complete_processor(completed)
    return str(completed)


@contextmanager
def same_random_state() -> Iterator[None]:
    """Restore the generators of torch, numpy and Python afterwards: vLLM seeds all three when it starts."""
    state, numpy_state = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield
    random.setstate(state)
    np.random.set_state(numpy_state)


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing on standard output and error within the block, unless it fails: then all of it is printed on standard error."""
    if os.environ.get("VLLM_LOGGING_LEVEL") != "ERROR":  # The user asked for vLLM's log.
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        kept = [os.dup(1), os.dup(2)]
        try:
            os.dup2(held.fileno(), 1)
            os.dup2(held.fileno(), 2)
            yield
        except BaseException:
            sys.stdout.flush()
            sys.stderr.flush()
            held.seek(0)
            os.write(kept[1], held.read())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for descriptor in kept:
                os.close(descriptor)
