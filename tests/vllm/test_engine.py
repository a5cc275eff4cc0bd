"""The real vLLM on a CPU: agreement with the trainer for both families, fully trained and with adapters, whatever part was moved.

Each case starts an engine in a process of its own (`measure.py`), a minute on two cores.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ENVIRONMENT = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
BOUND = 1e-3
"""Nats per token: the agreement that float32 must reach; 1e-6 is measured."""
BFLOAT16_BOUND = 3e-2
"""The same for bfloat16: 8 bits of mantissa, a few layers."""
PAGE = HERE.parents[1] / "docs" / "vllm-alignment.md"
HEAD = """# Sampler against trainer

Mean |difference| of log-probabilities, in nats per token, between the engine that sampled a rollout and a forward of
the model in training: packaged tiny models, after vision tower, projector and language model (or the adapters on them)
were moved by a tenth of their spread and the sampler was refreshed. "Not refreshed" is vLLM in float32 *before* that
refresh. The trainer computes in float32. One digit, because the rest depends on the rollouts. Written by
`make test-vllm`.

| family | trained | prompt | native float32 | vLLM float32 | not refreshed | native bfloat16 | vLLM bfloat16 |
|---|---|---|---|---|---|---|---|
"""
CASES = [(family, how) for family in ("qwen3vl", "internvl35") for how in ("full", "lora")]


@lru_cache
def measured(family: str, how: str, precision: str = "float32") -> dict[str, Any]:
    """What `measure.py` found in its own process, with the lines that it printed."""
    command = [sys.executable, str(HERE / "measure.py"), family, how, precision]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    *lines, last = done.stdout.strip().splitlines()
    found = json.loads(last) | {"lines": [line for line in (*lines, *done.stderr.splitlines()) if line.strip()]}
    with capture_disabled():
        gaps = [f"{kind} {side} {gap:.1e}" for side in SIDES if side in found for kind, gap in found[side].items()]
        print(f"\n{family} {how} {precision}: " + ", ".join(gaps))
    return found


SIDES = ("start", "vision_not_refreshed", "not_refreshed", "refreshed", "native")
capture_disabled: Any = None


@pytest.fixture(autouse=True)
def shown(capsys: pytest.CaptureFixture) -> None:
    """Let the alignment matrix reach the terminal."""
    global capture_disabled
    capture_disabled = capsys.disabled


@pytest.mark.parametrize(("family", "how"), CASES)
def test_log_probabilities_agree_after_every_part_was_moved(family: str, how: str) -> None:
    found = measured(family, how)
    for kind in ("picture", "text"):
        assert found["start"][kind] < BOUND
        assert found["refreshed"][kind] < BOUND
        assert found["refreshed_again"][kind] < BOUND
        assert found["not_refreshed"][kind] > 1000 * found["refreshed"][kind], "without the refresh they would not agree"
        assert found["native"][kind] < BOUND


@pytest.mark.parametrize(("family", "how"), CASES)
def test_stale_weights_are_named_where_log_probabilities_show_nothing(family: str, how: str) -> None:
    found = measured(family, how)
    assert found["vision_not_refreshed"]["picture"] < 0.1, "below the bound that was once the only check"
    assert found["vision_stale"], "the probes name the weights"
    assert found["stale_after_refresh"] == []


@pytest.mark.parametrize(("family", "how"), CASES)
def test_the_engine_starts_from_the_checkpoint(family: str, how: str) -> None:
    """Before any refresh: load_format="dummy" would randomise persistent buffers too, which no refresh overwrites."""
    assert measured(family, how)["stale_at_start"] == []


@pytest.mark.parametrize("family", ["qwen3vl", "internvl35"])
def test_a_tied_head_that_is_not_repacked_is_refused(family: str) -> None:
    """Fully trained only: adapters leave the embedding, and so the head, as it was."""
    assert "lm_head" in measured(family, "full")["head_without_repacking"]
    assert measured(family, "lora")["head_without_repacking"] == "no error"


@pytest.mark.parametrize(("family", "how"), CASES)
def test_greedy_answers_are_those_of_the_native_engine(family: str, how: str) -> None:
    answers = measured(family, how)["answers"]
    assert answers["other"] == 0 and answers["equal"] > answers["tie"], answers


@pytest.mark.parametrize(("family", "how"), CASES)
def test_the_engine_starts_quietly_within_the_models_limit_and_leaves_the_generators(family: str, how: str) -> None:
    found = measured(family, how)
    assert found["same_random_state"]
    assert found["limit"] < 4096 + 24, "the default room for a prompt would exceed it"
    assert not [line for line in found["lines"] if re.match(r"(INFO|WARNING|DEBUG) ", line)], found["lines"][:5]


@pytest.mark.parametrize(("family", "how"), CASES)
def test_more_prompts_than_a_step_of_vllm_holds_are_sampled(family: str, how: str) -> None:
    """A prompt cut between two steps rewinds the generator of its rollout, which raises on a CPU."""
    crowded = measured(family, how)["crowded"]
    assert crowded["rollouts"] == crowded["prompts"] > 8, "more than the other measurements sample at once"


@pytest.mark.parametrize("family", ["qwen3vl", "internvl35"])
def test_samplers_in_bfloat16_differ_by_rounding_alone(family: str) -> None:
    found = measured(family, "full", "bfloat16")
    assert found["stale_after_refresh"] == []
    for side in ("refreshed", "native"):
        for kind in ("picture", "text"):
            assert 1e-5 < found[side][kind] < BFLOAT16_BOUND, (side, kind)


def test_the_alignment_matrix_is_in_the_docs() -> None:
    """Measured above; written as docs/vllm-alignment.md."""
    rows = []
    for family, how in CASES:
        exact, lower = measured(family, how), measured(family, "full", "bfloat16")
        for kind in ("picture", "text"):
            cells = [exact["native"], exact["refreshed"], exact["not_refreshed"], lower["native"], lower["refreshed"]]
            shown = [f"{cell[kind]:.0e}" for cell in cells[: 5 if how == "full" else 3]]
            shown += [""] * (5 - len(shown))
            rows.append(f"| {family} | {how} | {kind} | " + " | ".join(shown) + " |")
    PAGE.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    assert len(rows) == 8


def test_a_checkpoint_of_before_is_completed_for_the_processor(tmp_path: Path) -> None:
    """InternVL directories that were written without processor_config.json."""
    import shutil

    from transformers import InternVLProcessor

    from percasym.models import locate
    from percasym.rollout.vllm_engine import servable, use_trainers_images

    old = tmp_path / "old"
    shutil.copytree(locate.packaged("internvl35"), old)
    (old / "processor_config.json").unlink()
    settings = json.loads((old / "tokenizer_config.json").read_text())
    settings.pop("model_specific_special_tokens")
    (old / "tokenizer_config.json").write_text(json.dumps(settings))
    use_trainers_images("GotOcr2ImageProcessor")
    with pytest.raises(AttributeError):
        InternVLProcessor.from_pretrained(old)
    completed = servable(str(old))
    assert completed != str(old) and (Path(completed) / "model.safetensors").is_symlink()
    assert InternVLProcessor.from_pretrained(completed).image_seq_length == 36
