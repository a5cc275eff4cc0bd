"""Peak memory and processor time of our loss beside the naive one, forward and backward.

    python benchmarks/loss_memory.py            8,192 tokens, vocabulary 151,936 (Qwen3-VL's), every token supervised
    python benchmarks/loss_memory.py --tokens 1024 --hidden 1024      a wider head: its products count, memory traffic less

`ours` knows the weight of each token beforehand, as SFT does; `afterwards` learns it from the losses, as RL does.

The model is one layer, and thin, so that what is measured is head and cross-entropy. Each round of each arm is a process of its
own, because allocators keep what they had. The naive loss is the Hugging Face model's own (`labels=`); where the machine
has not the memory for it, it is measured on half the tokens, or a quarter, beside ours on as many. Its bytes are in proportion to tokens.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import psutil  # DeepSpeed brings it.

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
VOCABULARY = 151_936
NAIVE_COPIES = 5  # Tables of float32 logits that the naive loss holds at its peak, one to spare.


def model_and_ids(tokens: int, hidden: int):
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=hidden, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=64, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen3ForCausalLM(config), torch.randint(0, VOCABULARY, (1, tokens))


def ours(model, ids) -> float:
    import torch

    from percasym.objectives.token_nll import TokenNll

    coefficients = torch.full(ids.shape, 1 / (ids.numel() - 1))
    loss, _ = TokenNll(model)(all_but_the_first(ids), coefficients, input_ids=ids)
    loss.backward()
    return loss.item()


def afterwards(model, ids) -> float:
    from percasym.objectives.token_nll import TokenNll

    loss = TokenNll(model)(all_but_the_first(ids), input_ids=ids).sum() / (ids.numel() - 1)
    loss.backward()
    return loss.item()


def all_but_the_first(ids):
    from percasym.objectives.token_nll import supervised

    labels = ids.new_ones(ids.shape)
    labels[:, 0] = -1
    return supervised(labels)


def naive(model, ids) -> float:
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.item()


ARMS = {"ours": ours, "afterwards": afterwards, "naive": naive}


def resident_bytes(line: str) -> int:
    """`VmRSS` (now) or `VmHWM` (the most since the last reset) of this process."""
    return int(next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(line)).split()[1]) * 1024


def measure(arm: str, tokens: int, hidden: int) -> dict[str, float]:
    """One arm in this process: bytes above the loaded model, processor seconds, loss."""
    import torch

    torch.set_num_threads(1)
    model, ids = model_and_ids(tokens, hidden)
    work = ARMS[arm]
    work(model, ids[:, :8])  # Load the kernels and the gradient of the weights: both arms keep those.
    model.zero_grad(set_to_none=False)
    Path("/proc/self/clear_refs").write_text("5")  # Forget the peak of making the model.
    before, began = resident_bytes("VmRSS"), time.process_time()
    loss = work(model, ids)
    return {"bytes": resident_bytes("VmHWM") - before, "seconds": time.process_time() - began, "loss": loss}


def in_a_process(arm: str, tokens: int, hidden: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--arm", arm, "--tokens", str(tokens), "--hidden", str(hidden)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


def affordable(tokens: int) -> int:
    """As many tokens, or half of them, and so on, as the naive loss has memory for."""
    while NAIVE_COPIES * 4 * VOCABULARY * tokens > psutil.virtual_memory().available:
        tokens //= 2
    return tokens


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tokens", type=int, default=8192)
    arguments.add_argument("--hidden", type=int, default=128, help="width of the last hidden state")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--arm", choices=list(ARMS), help="measure one arm in this process and print JSON")
    asked = arguments.parse_args()
    if asked.arm:
        print(json.dumps(measure(asked.arm, asked.tokens, asked.hidden)))
        return
    beside = affordable(asked.tokens)
    rounds = [{arm: in_a_process(arm, beside, asked.hidden) for arm in ARMS} for _ in range(asked.rounds)]
    whole = in_a_process("ours", asked.tokens, asked.hidden)
    seconds = {arm: [one[arm]["seconds"] / one["naive"]["seconds"] for one in rounds] for arm in ("ours", "afterwards")}
    peak = {arm: max(one[arm]["bytes"] for one in rounds) for arm in ARMS}
    naive_whole = peak["naive"] * asked.tokens / beside
    report = {
        "tokens": asked.tokens, "hidden": asked.hidden, "vocabulary": VOCABULARY, "beside_tokens": beside, "rounds": rounds, "whole": whole,
        "bytes_ratio": whole["bytes"] / naive_whole, "seconds_ratio": {arm: median(ratios) for arm, ratios in seconds.items()},
    }  # fmt: skip
    sizes = f"vocabulary {VOCABULARY}, hidden {asked.hidden}"
    print(f"{sizes}, float32, one thread, {asked.rounds} processes for each arm; bytes are above the loaded model")
    for arm in peak:
        spent, loss = median(one[arm]["seconds"] for one in rounds), rounds[0][arm]["loss"]
        print(f"  {arm:>10}, {beside} tokens: peak {peak[arm] / 2**20:6.0f} MiB, {spent:6.2f} processor s, loss {loss:.5f}")
    print(f"        ours, {asked.tokens} tokens: peak {whole['bytes'] / 2**20:6.0f} MiB, {whole['seconds']:6.2f} processor s")
    how = "" if beside == asked.tokens else f" (naive: {asked.tokens / beside:g} times its bytes on {beside}, for want of memory)"
    print(f"  ours / naive, bytes, {asked.tokens} tokens: {report['bytes_ratio']:.4f}{how}")
    for arm, ratios in seconds.items():
        print(f"  {arm} / naive, seconds, {beside} tokens: {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"loss_memory_{asked.hidden}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
