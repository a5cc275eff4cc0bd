"""`percasym plan`: what it prints, what it refuses, and that the commands of experiments/paper_scale fit."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from percasym.cli import main as cli
from percasym.config.resolve import composed
from percasym.plan import memory
from percasym.plan import plan as planning
from percasym.plan.inputs import QWEN_PIECES, token_counter
from percasym.plan.memory import GRANULE
from percasym.plan.plan import Plan, plan, table

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "experiments" / "paper_scale" / "README.md"
FAMILIES = ("qwen3vl", "internvl35")


@pytest.fixture(autouse=True)
def _measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache the lengths of each task and family: drawing samples is the slow part of a plan."""
    monkeypatch.setattr(planning, "measure_lengths", measured)


def measured(task, anatomy, *, split):
    key = (task, anatomy.directory, anatomy.image_tokens(512, 512))
    if key not in KNOWN:
        KNOWN[key] = original_measure(task, anatomy, split=split)
    return KNOWN[key]


KNOWN: dict = {}
original_measure = planning.measure_lengths


def planned(line: str) -> Plan:
    """The plan of a command line: words of train.py, and perhaps --gpu-gb."""
    words, _, size = line.partition("--gpu-gb ")
    return plan(composed(words.split(), ROOT / "conf"), gpu_gb=float(size or 80))


def test_a_plan_names_every_part_and_says_whether_it_fits(capsys) -> None:
    assert cli.main(["plan", "scale=paper", "model=qwen3vl"]) == 0
    out = capsys.readouterr().out
    assert "8,767,123,696" in out
    for part in ("weights", "gradients", "span gradient", "optimizer", "activations", "logits", "key-value cache"):
        assert re.search(rf"│ {part} +│", out), part
    # 16 bytes for each of 8.767 billion parameters and 4 more for the gradient of a span: 175 GB on one GPU.
    assert "It does not fit: " in out and " of 80 GB." in out
    assert cli.main(["plan", "scale=tiny"]) == 0
    assert "It fits: " in capsys.readouterr().out


@pytest.mark.parametrize("family", FAMILIES)
def test_the_states_of_a_whole_model_on_one_gpu(family: str) -> None:
    held = planned(f"scale=paper model={family} model.freeze=[] paradigm.batch_size=2").training
    total = {"qwen3vl": 8_767_123_696, "internvl35": 8_528_318_464}[family]
    assert [held[name] for name in ("weights", "gradients", "span gradient", "optimizer")] == [4 * total, 4 * total, 4 * total, 8 * total]


@pytest.mark.parametrize("family", FAMILIES)
def test_rl_adds_rollouts_and_a_reference_and_takes_a_span_gradient_away(family: str) -> None:
    line = f"scale=paper model={family} launch.nproc=8 engine.zero_stage=1"
    learned, sampled = planned(line), planned(f"{line} paradigm=rl paradigm.kl=0.01")
    total = sampled.parameters.total
    assert "reference" not in {part for part, size in learned.training.items() if size} and learned.rollouts == {}
    linear = sampled.parameters.linear  # In a second copy, linear layers are stored in the compute type.
    reference = 4 * (total - linear) + 2 * linear
    assert [held["reference"] for held in (sampled.training, sampled.evaluation, sampled.rollouts)] == [reference] * 3
    sharded = planned(f"{line} paradigm=rl paradigm.kl=0.01 engine.zero_stage=3 engine.weights=bfloat16")
    assert sharded.training["reference"] == 2 * total // 8
    assert planned(f"{line} paradigm=rl paradigm.kl=0.01 model.lora.rank=8").training["reference"] == 0
    assert sampled.training["span gradient"] == 0 < learned.training["span gradient"]
    assert planned(f"{line} paradigm=rl balance=ngdiff").training["span gradient"] == learned.training["span gradient"]
    assert planned(f"{line} paradigm=rl").training["reference"] == 0
    # 64 prompts on 8 ranks: 8 groups of 8 rollouts, fewer than the 256 that rollout.batch_size allows; 32 rows in an evaluation.
    assert sampled.rollouts["key-value cache"] == 2 * sampled.evaluation["key-value cache"]
    assert sampled.rollouts["activations"] == sampled.evaluation["activations"] // 4, "8 prompts are prefilled, not 32"


def test_the_length_of_a_rollout_counts_where_it_differs_from_an_evaluation() -> None:
    line = "scale=paper paradigm=rl launch.nproc=8 evaluation.max_new_tokens=3000 rollout.max_new_tokens={}"
    short, long = planned(line.format(3000)), planned(line.format(6000))
    assert short.evaluation == long.evaluation
    ratio = long.rollouts["key-value cache"] / short.rollouts["key-value cache"]
    prefix = math.ceil(short.lengths.prefix)
    granules = [math.ceil((prefix + tokens) / GRANULE) for tokens in (6000, 3000)]
    assert ratio == pytest.approx(granules[0] / granules[1])
    learned = math.ceil(short.lengths.prompt) + short.lengths.picture
    ratio = long.training["activations"] / short.training["activations"]
    assert 1.5 < ratio <= (learned + 6000) / (learned + 3000), "rows are as long as a rollout may be; the picture's part stays"


def test_rewards_that_ask_the_model_are_counted_where_they_need_more_than_sampling() -> None:
    line = "scale=paper paradigm=rl launch.nproc=8 rollout.max_new_tokens=5000 evaluation.batch_size=128"
    cost = planned(line)  # 64 rollouts are sampled together, and rewards query 128 answers of the length of a rollout.
    by_the_row = planned(line.replace("=128", "=64")).rollouts["key-value cache"] / 64
    assert cost.rollouts["key-value cache"] == 128 * by_the_row
    assert "evaluation.batch_size=32" in dict(cost.remedies())


def test_vllm_takes_its_share_where_it_is_awake() -> None:
    def shares(line: str) -> list[float]:
        cost = planned(f"scale=paper launch.nproc=8 {line} --gpu-gb 80")
        return [held.get("vLLM", 0) / 1e9 for held in (cost.training, cost.evaluation, cost.rollouts)]

    rollouts = "paradigm=rl rollout=vllm rollout.gpu_memory_frac=0.3"
    assert shares(rollouts) == [0, 0, 24]
    assert shares(f"{rollouts} rollout.sleep=false") == [24, 24, 24]
    assert shares(f"{rollouts} evaluation.engine=vllm") == [0, 24, 24], "one engine for both"
    assert shares("evaluation.engine=vllm evaluation.gpu_memory_frac=0.5") == [0, 40, 0]


def test_rollouts_in_a_type_of_their_own_hold_a_copy_of_the_decoder() -> None:
    line = "scale=paper paradigm=rl launch.nproc=8 engine.zero_stage=1"
    plain, copied = planned(line).rollouts, planned(f"{line} rollout.precision=bfloat16").rollouts
    assert copied["decoder copy"] == 2 * 8_190_735_360 and not plain.get("decoder copy")


def test_what_zero_would_save_under_plain_pytorch_is_told_with_the_engine_that_has_it() -> None:
    deepspeed, plain = (dict(planned(f"scale=paper launch.nproc=8 engine={name}").remedies()) for name in ("deepspeed", "torch"))
    assert "engine.zero_stage=3" in deepspeed and "engine.zero_stage=3" not in plain
    assert plain["engine=deepspeed engine.zero_stage=3"] == planned("scale=paper launch.nproc=8 engine.zero_stage=3").peak


def test_vllm_spares_an_evaluation_the_whole_weights() -> None:
    line = "scale=paper model.size=32B launch.nproc=8 engine.zero_stage=3 engine.weights=bfloat16"
    native, served = planned(line).evaluation, planned(f"{line} evaluation.engine=vllm evaluation.tensor_parallel=8").evaluation
    assert native["gathered weights"] == 2 * 33_357_390_064
    assert "gathered weights" not in served and "key-value cache" not in served


def test_vllm_must_fit_into_its_share(capsys) -> None:
    line = "scale=paper experiment=eight_gpus model.size=32B engine.offload=true evaluation.engine=vllm"
    cost = planned(line)
    # 33,357,390,064 weights in bfloat16 are 66.7 GB, and one sequence of 64 layers a few hundred MB; the share is 0.4 of 80 GB.
    needed = memory.vllm_bytes(cost.anatomy, cost.parameters, cost.layout, cost.lengths)
    assert cost.vllm_share == 32e9 < 66_714_780_128 < needed < 68e9 and cost.peak < 80e9
    assert not cost.fits
    assert planned(f"{line} evaluation.tensor_parallel=4").fits
    assert cost.fitting() == ("evaluation.tensor_parallel=8", cost.peak)
    assert cli.main(["plan", *line.split()]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "vLLM does not fit: its weights and one sequence need 67" in out and "It fits" not in out
    assert "Raise evaluation.tensor_parallel or evaluation.gpu_memory_frac." in out
    assert "This fits, 47.5 GB: evaluation.tensor_parallel=8" in out
    sampled = planned("scale=paper experiment=eight_gpus_rl_vllm model.size=32B engine.offload=true paradigm.diagnose_every=0")
    assert not sampled.vllm_fits and sampled.fitting() == ("rollout.tensor_parallel=8", sampled.peak)


@pytest.mark.parametrize(("model", "size"), [("qwen3vl", "32B"), ("internvl35", "38B")])
def test_the_largest_dense_sizes_fit_eight_gpus_with_offload(model: str, size: str) -> None:
    more = "engine.offload=true evaluation.engine=vllm evaluation.tensor_parallel=8"
    cost = planned(f"scale=paper experiment=eight_gpus balance=ngdiff model={model} model.size={size} {more}")
    assert cost.layout.stores_span_gradient
    assert cost.peak <= 75e9


def test_14b_fits_eight_gpus_without_offload() -> None:
    assert planned("scale=paper experiment=eight_gpus balance=ngdiff model=internvl35 model.size=14B").peak <= 75e9


def test_a_plan_of_rl_shows_its_rollouts(capsys) -> None:
    assert cli.main(["plan", "paradigm=rl", "paradigm.kl=0.01", "rollout.max_new_tokens=8"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"training ┃ evaluation ┃ rollouts", out) and re.search(r"│ reference +│", out)
    assert "of them sampling)" in out
    assert "rollout.max_new_tokens=8 cuts the mean response short. Raise it." in out


@pytest.mark.parametrize("family", FAMILIES)
def test_the_paper_scale_freezes_what_usual_recipes_freeze(family: str) -> None:
    frozen, whole = planned(f"scale=paper model={family}"), planned(f"scale=paper experiment=vision_trained model={family}")
    assert frozen.parameters.trained["vision"] == frozen.parameters.trained["projector"] == 0
    assert dict(whole.parameters.trained) == dict(whole.parameters.base)
    assert frozen.parameters.num_trained == whole.parameters.base["language"]
    settings = composed(["scale=paper", "experiment=vision_trained", f"model={family}"], ROOT / "conf")
    assert (settings.paradigm.lr, settings.paradigm.lr_vision, settings.paradigm.warmup_frac) == (1e-5, 1e-6, 0.1)
    assert composed(["scale=paper", "paradigm=rl"], ROOT / "conf").paradigm.warmup_frac == 0.1


def test_what_would_help_is_said_with_what_it_leads_to() -> None:
    cost = planned("scale=paper launch.nproc=8 engine.zero_stage=2 evaluation.batch_size=8")
    remedies = dict(cost.remedies())
    assert remedies["engine.zero_stage=3"] == planned("scale=paper launch.nproc=8 engine.zero_stage=3 evaluation.batch_size=8").peak
    assert all(peak < cost.peak for peak in remedies.values())


def test_where_no_single_change_suffices_a_set_of_them_is_said(capsys) -> None:
    line = "scale=paper launch.nproc=8 engine.zero_stage=2 evaluation.batch_size=8"
    below = (min(dict(planned(line).remedies()).values()) - 1) / 1e9  # Less than any single change leads to.
    found = planned(f"{line} --gpu-gb {below}").fitting()
    assert found is not None
    words, peak = found
    changed = {word.partition("=")[0]: word for word in words.split()}
    assert len(changed) > 1
    kept = [word for word in line.split() if word.partition("=")[0] not in changed]
    assert planned(f"{' '.join([*kept, *changed.values()])} --gpu-gb {below}").peak == peak <= below * 1e9, "the plan of that command"
    assert cli.main(["plan", *line.split(), "--gpu-gb", str(below)]) == 0
    assert f"These fit together, {peak / 1e9:.1f} GB: {words}" in capsys.readouterr().out
    assert planned(f"{line} --gpu-gb 0.5").fitting() is None
    assert cli.main(["plan", *line.split(), "--gpu-gb", "0.5"]) == 0
    assert "No set of 4 of these fits. Choose a smaller model.size, adapters (model.lora.rank=16), or more" in capsys.readouterr().out
    assert cli.main(["plan", "scale=paper", "experiment=one_24gb_gpu", "model.size=32B", "--gpu-gb", "24"]) == 0
    assert "Choose a smaller model.size, or more and larger GPUs." in capsys.readouterr().out, "there are adapters already"
    exact = planned("scale=paper launch.nproc=8 engine.precision=float32")
    assert "engine.zero_stage=3 engine.weights=bfloat16" not in dict(exact.remedies()), "a run in float32 refuses it"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["taks=sudoku"], "There is no option taks; did you mean task?"),
        (["model.size=7B"], "model.size must be one of tiny, tiny-graphs, 2B, 4B, 8B, 30B-A3B, 32B, got '7B'."),
        (["model.path=someone/else"], "Nothing is recorded of model.path=someone/else: "),
        (["scale=paper", "launch.nproc=7"], "paradigm.batch_size=64 cannot be dealt out evenly to 7 ranks."),
        (["--gpu-gb", "0"], "--gpu-gb must be a number above 0, got 0."),
        (["task=sudoku,graph_coloring"], "task=sudoku,graph_coloring is more than one value"),
    ],
)
def test_a_wrong_word_is_one_sentence(words, message, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message) and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("paradigm", ["sft", "rl"])
def test_a_plan_answers_at_once_and_loads_no_model_library(family: str, paradigm: str) -> None:
    import resource

    code = (
        "import sys; from percasym.cli.main import main; "
        f"main(['plan', 'scale=paper', 'model={family}', 'paradigm={paradigm}']); "
        "assert not {'torch', 'transformers', 'deepspeed'} & set(sys.modules)"
    )
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime < 3.0


def commands(text: str) -> list[str]:
    """The words of every `python train.py` and `percasym plan` in a page, sweeps taken apart."""
    lines = re.findall(r"^ {4}(?:python train\.py|percasym plan) (.+)$", text, flags=re.MULTILINE)
    return [" ".join(words) for line in lines for words in itertools.product(*(_choices(word) for word in line.split() if word != "-m"))]


def _choices(word: str) -> list[str]:
    key, equals, values = word.partition("=")
    return [word] if not equals or values.startswith("[") else [f"{key}={value}" for value in values.split(",")]


def test_sweeps_are_taken_apart() -> None:
    assert commands("    python train.py -m a=1,2 b=[3,4]\n    percasym plan c --gpu-gb 24\n") == [
        "a=1 b=[3,4]",
        "a=2 b=[3,4]",
        "c --gpu-gb 24",
    ]


def test_every_command_of_the_paper_scale_composes_and_fits() -> None:
    lines = commands(README.read_text(encoding="utf-8"))
    for cell in itertools.product(FAMILIES, ("sudoku", "graph_coloring"), ("none", "fixed", "ngdiff")):
        words = {f"{group}={choice}" for group, choice in zip(("model", "task", "balance"), cell, strict=True)}
        assert any({"experiment=eight_gpus", *words} <= set(line.split()) for line in lines), cell
    for line in lines:
        size = "" if "--gpu-gb" in line or "24gb" not in line else " --gpu-gb 24"
        assert planned(line + size).fits, line


@pytest.mark.parametrize("experiment", ["eight_gpus", "eight_gpus_rl", "one_24gb_gpu", "one_24gb_gpu_rl"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", ["sudoku", "graph_coloring"])
def test_every_preset_fits_its_gpus(experiment: str, family: str, task: str) -> None:
    size = " --gpu-gb 24" if "24gb" in experiment else ""
    cost = planned(f"scale=paper experiment={experiment} model={family} task={task}{size}")
    assert cost.fits and cost.peak < 0.95 * cost.gpu_bytes, f"{cost.peak / 1e9:.1f} GB"
    assert (cost.layout.sampled is not None) == experiment.endswith("_rl")


def test_a_plan_counts_the_memory_of_the_host_and_a_checkpoint() -> None:
    # 8,767,123,696 parameters, 8,190,735,360 of them trained: the first of 8 ranks loads 4 bytes of all.
    cost = planned("scale=paper launch.nproc=8 engine.zero_stage=2 engine.offload=true")
    host = memory.host(cost.parameters, cost.layout)
    assert host["loading"] == 4 * 8_767_123_696
    assert host["training"] == 8 * sum(memory.on_host(cost.parameters, cost.layout).values())
    assert memory.checkpoint_bytes(cost.parameters, cost.layout) == 4 * (8_767_123_696 + 2 * 8_190_735_360)
    lines = "\n".join(str(line) for line in table(cost).renderables if isinstance(line, str))
    assert "Host memory of a machine: 35.1 GB while its first rank loads the model, " in lines
    assert host["saving"] == host["training"] + 4 * 8_767_123_696, "a file of 35 GB, copied from the GPU"
    large = planned("scale=paper model.size=32B launch.nproc=8 engine.zero_stage=2")
    assert memory.host(large.parameters, large.layout)["saving"] == 50e9, "files of 50 GB, one at a time"
    adapters = planned("scale=paper model.lora.rank=16 launch.nproc=8 engine.zero_stage=2")
    assert memory.host(adapters.parameters, adapters.layout)["saving"] == 4 * adapters.parameters.num_trained
    sharded = planned("scale=paper launch.nproc=8 engine.zero_stage=3")
    assert memory.host(sharded.parameters, sharded.layout)["saving"] == 4 * 8_767_123_696, "collected on the first rank"
    assert "A checkpoint: 100.6 GB." in lines


@pytest.mark.parametrize("experiment", ["eight_gpus", "one_24gb_gpu", "eight_gpus_rl", "one_24gb_gpu_rl"])
def test_hydra_shows_the_same_configuration(experiment: str) -> None:
    words = ["scale=paper", f"experiment={experiment}", "--cfg", "job"]
    done = subprocess.run([sys.executable, "train.py", *words], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "gradient_checkpointing: true" in done.stdout


def test_estimated_tokens_are_digits_and_words() -> None:
    tokens, source = token_counter(None)
    assert tokens("r1c2: row 1 4.") == 11  # r 1 c 2 : " row" " " 1 " " 4 . (a space before a digit stands alone)
    assert "estimate" in source and r"\p{N}" in QWEN_PIECES
