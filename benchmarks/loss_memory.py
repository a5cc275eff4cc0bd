"""Peak memory and time of our loss beside the naive one, forward and backward.

    python benchmarks/loss_memory.py            both arms, 4,096 tokens, vocabulary 151,936 (Qwen3-VL's), every token supervised
    python benchmarks/loss_memory.py --tokens 512 --rounds 1

The model is one thin layer, so that what is measured is head and cross-entropy. Each round of each arm is a process of its
own, because a process never gives its peak back. The naive loss is the Hugging Face model's own (`labels=`).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
VOCABULARY = 151_936
HIDDEN = 128


def model_and_ids(tokens: int):
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=HIDDEN, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=64, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen3ForCausalLM(config), torch.randint(0, VOCABULARY, (1, tokens))


def ours(model, ids) -> float:
    from percasym.objectives.token_nll import TokenNll, supervised

    labels = ids.new_ones(ids.shape)
    labels[:, 0] = -1
    loss = TokenNll(model)(supervised(labels), input_ids=ids).sum() / (ids.numel() - 1)
    loss.backward()
    return loss.item()


def naive(model, ids) -> float:
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.item()


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(arm: str, tokens: int) -> dict[str, float]:
    """One arm in this process: bytes above the loaded model, seconds, loss."""
    model, ids = model_and_ids(tokens)
    work = {"ours": ours, "naive": naive}[arm]
    work(model, ids[:, :8])  # Load the kernels and the gradient of the weights: both arms keep those.
    model.zero_grad(set_to_none=False)
    before, began = peak_bytes(), time.perf_counter()
    loss = work(model, ids)
    return {"bytes": peak_bytes() - before, "seconds": time.perf_counter() - began, "loss": loss}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tokens", type=int, default=4096)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--arm", choices=["ours", "naive"], help="measure one arm in this process and print JSON")
    asked = arguments.parse_args()
    if asked.arm:
        print(json.dumps(measure(asked.arm, asked.tokens)))
        return
    results: dict[str, list[dict[str, float]]] = {"ours": [], "naive": []}
    for _ in range(asked.rounds):
        for arm, rounds in results.items():
            command = [sys.executable, __file__, "--arm", arm, "--tokens", str(asked.tokens)]
            rounds.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout))
    print(f"{asked.tokens} tokens, vocabulary {VOCABULARY}, float32, {asked.rounds} processes per arm")
    for arm, rounds in results.items():
        seconds = [one["seconds"] for one in rounds]
        peak, loss = max(one["bytes"] for one in rounds), rounds[0]["loss"]
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(f"{arm:>6}: peak {peak / 2**20:7.0f} MiB above the model, {median(seconds):6.2f} s ({spread}), loss {loss:.5f}")
    for what in ("bytes", "seconds"):
        ratios = [one[what] / other[what] for one, other in zip(results["ours"], results["naive"], strict=True)]
        print(f"ours / naive, {what}: {median(ratios):.3f} (pairs {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
