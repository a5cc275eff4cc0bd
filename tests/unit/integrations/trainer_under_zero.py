"""BalancedTrainer under DeepSpeed; `test_two_ranks.py` starts this file under torchrun, once in each of two processes."""

from __future__ import annotations

import os

import pytest
from accelerate.state import AcceleratorState, PartialState

from percasym.balance.registry import balancer
from percasym.config.schema import ConfigError

os.environ["DS_ACCELERATOR"] = "cpu"
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # Deprecated names of torch.distributed in DeepSpeed 0.19.


@pytest.fixture(scope="module", autouse=True)
def no_compiled_all_reduce() -> None:
    """DeepSpeed's shared-memory all-reduce takes a minute to compile, and gloo does not need it."""
    from deepspeed import ops

    vars(ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False


def options(stage: int) -> dict:
    """DeepSpeed's configuration as the Trainer takes it."""
    config = {
        "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "gradient_clipping": "auto",
        "zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
    }  # fmt: skip
    return {"deepspeed": config, "ddp_backend": "gloo"}


@pytest.fixture(autouse=True)
def fresh_state():
    yield
    AcceleratorState._reset_state()
    PartialState._reset_state()


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("name", ["none", "fixed", "hidden"])
def test_strategies_with_one_backward_are_exact(stage, name, windows, own_loop, make_trainer, logged, assert_same_curve) -> None:
    steps = windows(steps=4, micro=4)
    ours, _ = own_loop(steps, balancer(name))
    trainer = make_trainer(steps, name, accumulation=2, **options(stage))
    trainer.train()
    assert type(trainer.model_wrapped).__name__ == "DeepSpeedEngine"
    if trainer.args.process_index == 0:
        assert_same_curve(logged(trainer), ours)
        assert "grad/perception" not in logged(trainer)[0]


def test_strategies_that_need_both_gradients_are_refused(windows, make_trainer) -> None:
    with pytest.raises(ConfigError, match=r"NGDiff measures both gradients, and DeepSpeed's optimizer holds one\. .* use Hidden"):
        make_trainer(windows(steps=1), "ngdiff", **options(2))
