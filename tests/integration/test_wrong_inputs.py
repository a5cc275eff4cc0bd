"""What a user can get wrong: each ends as one line on stderr, exit code 2, and nothing on the disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WRONG = {
    "misspelt group": (["taks=sudoku"], "There is no option taks; did you mean task?"),
    "no such task": (["task=sudoko"], "There is no task=sudoko; did you mean task=sudoku? The choices are "),
    "no task at all": (["task=null"], "Config group override must be a string"),
    "two tasks without a sweep": (["task=sudoku,graph_coloring"], "task=sudoku,graph_coloring is more than one value: write "),
    "misspelt key": (["balance=fixed", "balance.wieght=0.5"], "There is no option balance.wieght; did you mean balance.weight? "),
    "key of another choice": (["balance=none", "balance.weight=0.5"], "There is no option balance.weight. balance=none has no options."),
    "key of another task": (["task=graph_coloring", "task.givens=[7,9]"], "There is no option task.givens. The options of task=gr"),
    "misspelt nested key": (["task.look.nois=0.1"], "There is no option task.look.nois; did you mean task.look.noise?"),
    "key of nothing": (["verbosity=3"], "There is no option verbosity. The options of a run are "),
    "text for a number": (["paradigm.steps=ten"], "paradigm.steps must be a whole number, got 'ten'."),
    "fraction for a whole number": (["paradigm.steps=1.5"], "paradigm.steps must be a whole number, got 1.5."),
    "truth for a number": (["paradigm.lr=true"], "paradigm.lr must be a number, got True."),
    "one number for a range": (["task.givens=8"], "task.givens must be a list of 2 (a whole number, a whole number), got 8."),
    "unfinished list": (["task.givens=[7,"], "Cannot read 'task.givens=[7,' on the command line"),
    "weight above one": (["balance=fixed", "balance.weight=1.7"], "balance.weight must lie in [0, 1], got 1.7."),
    "negative steps": (["paradigm.steps=-5"], "paradigm.steps must be at least 1, got -5."),
    "more texts than samples": (["paradigm.text_frac=1.5"], "paradigm.text_frac must lie in [0, 1], got 1.5."),
    "learning rate of zero": (["paradigm.lr=0"], "paradigm.lr must be above 0, got 0.0."),
    "micro batch that does not divide": (["paradigm.batch_size=8", "paradigm.micro_batch_size=3"], "paradigm.batch_size=8 is not a mul"),
    "size that no Sudoku has": (["task.size=5"], "task.size must be one of 4, 6, 9, got 5."),
    "givens out of range": (["task.givens=[0,2]"], "task.givens must be [low, high] with "),
    "unknown font": (["task.look.fonts=[comic]"], "look.fonts has no font 'comic'; the fonts are "),
    "class without a name": (["task._target_="], "task._target_ must be the dotted name of a class, got ''."),
    "class that is a path": (["task._target_=percasym/tasks"], "task._target_ must be the dotted name of a class, got 'percasym/tasks'."),
    "plug-in without a name": (["plugins=['']"], "plugins must name packages, as plugins=[my_tasks], got ''."),
    "class of another library": (["task._target_=os.system"], "task._target_=os.system lies outside percasym; add its package to plugins"),
    "class that does not exist": (["task._target_=percasym.tasks.chess.Chess"], "task._target_=percasym.tasks.chess.Chess cannot be imp"),
    "class of another group": (["task._target_=percasym.balance.none.NoBalance"], "task._target_=percasym.balance.none.NoBalance has no n"),
    "function for a class": (["balance._target_=percasym.launch.main.main"], "balance._target_=percasym.launch.main.main is no data"),
    "no processes": (["launch.nproc=0"], "launch.nproc must be at least 1, got 0."),
    "a batch that processes cannot share": (
        ["launch.nproc=3"],
        "paradigm.batch_size=16 cannot be dealt out evenly to 3 ranks. Start 2 (launch.nproc=2), or ",
    ),
    "machines that do not meet": (["launch.nnodes=2"], "launch.nnodes=2 needs launch.rendezvous=HOST:PORT, one of the machines and "),
    "no such ZeRO stage": (["engine=deepspeed", "engine.zero_stage=4"], "engine.zero_stage must be 0, 1, 2 or 3, got 4."),
    "offload without ZeRO": (["engine=deepspeed", "engine.offload=true"], "engine.offload=true needs engine.zero_stage of 1, 2 or 3: "),
    "negative seed": (["seed=-1"], "seed must be at least 0 and below 2 ** 63, got -1."),
    "study outside multirun": (["study=../mine"], "study must be a name of letters, digits, '_', '-' and '.', got '../mine'."),
    "unknown precision": (["engine.precision=fp16"], "engine.precision must be auto, float32 or bfloat16, got 'fp16'."),
    "adapter of rank zero": (["model.lora.rank=0"], "model.lora.rank must be at least 1, got 0."),
    "adapter option that does not exist": (["model.lora.rnk=8"], "There is no option model.lora.rnk; did you mean model.lora.rank? "),
    "adapters by a switch": (["model.lora=true"], "model.lora must be a group of options (rank, alpha, dropout, targets) or null, got T"),
    "adapter on an unknown part": (
        ["model.lora.targets=[lang]"],
        "model.lora.targets[0] must be language, projector or vision, got 'lang'; did you mean language?",
    ),
    "everything frozen": (["model.freeze=[vision,projector,language]"], "model.freeze=[vision,projector,language] leaves nothing to "),
    "adapters on a frozen part": (["model.freeze=[language]", "model.lora.rank=8"], "model.freeze and model.lora.targets both name "),
    "rounded weights without ZeRO-3": (
        ["engine=deepspeed", "engine.weights=bfloat16"],
        "engine.weights=bfloat16 needs engine.zero_stage=3, got 0.",
    ),
    "unknown attention": (["model.attention=flash"], "model.attention must be sdpa, eager or flash_attention_2, got 'flash'"),
    "interpolation of nothing": (["paradigm.steps=${stpes}"], "paradigm.steps: "),
}
"""Words on the command line, and how the answer begins; none of these imports torch."""

WRONG_WORLD = {
    "no checkpoint directory": (["model.path=/nowhere/to/be/found"], "No checkpoint directory at /nowhere/to/be/found."),
    "a directory that is no checkpoint": (["model.path={empty}"], "{empty} holds no config.json"),
    "a relative directory that is no checkpoint": (["model.path=pictures"], "pictures holds no config.json, so it is not a Hugging Face "),
    "a config.json of no model": (["model.path={nameless}"], "{nameless}/config.json names no model_type, so it is not that of a Hugg"),
    "a checkpoint without an image processor": (
        ["model.path={blind}"],
        "The checkpoint {blind} could not be loaded (OSError: Can't load image processor for '{blind}'.). Check model.path.\n",
    ),
    "damaged safetensors": (
        ["model.path={damaged}"],
        "{damaged}/config.json asks for ",
    ),
}
"""What only files and hardware can tell."""


def refused(code: int, out: str, err: str, begins: str) -> None:
    assert code == 2
    assert err.startswith(begins), err
    assert err.count("\n") == 1, "one line"
    assert "Traceback" not in err + out


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_input_is_one_sentence(command, tmp_path: Path, what: str) -> None:
    words, begins = WRONG[what]
    answer = command(*words)
    refused(answer.code, answer.out, answer.err, begins)
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An empty folder, a config.json of no model, and a checkpoint whose weights were cut short, or that has no image processor."""
    from percasym.models.architecture import write_blank

    empty, whole, damaged, blind, nameless = map(tmp_path_factory.mktemp, ("empty", "whole", "damaged", "blind", "nameless"))
    write_blank(whole, ["Solve the Sudoku."])
    shutil.copytree(whole, damaged, dirs_exist_ok=True)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    shutil.copytree(whole, blind, dirs_exist_ok=True)
    (blind / "preprocessor_config.json").unlink()
    (nameless / "config.json").write_text("{}")
    return {"empty": str(empty), "damaged": str(damaged), "blind": str(blind), "nameless": str(nameless)}


@pytest.mark.parametrize("what", WRONG_WORLD)
def test_a_wrong_checkpoint_or_machine_is_one_sentence(command, places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    from percasym.app import run as app

    monkeypatch.setattr(app.torch.cuda, "is_available", lambda: False)
    words, begins = WRONG_WORLD[what]
    (tmp_path / "pictures").mkdir()
    answer = command("scale=smoke", *[word.format(**places) for word in words])
    refused(answer.code, answer.out, answer.err, begins.format(**places))
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"], "nothing is written"


def test_a_launch_inside_a_launch_is_one_sentence(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    answer = command("launch.nproc=2")
    refused(
        answer.code, answer.out, answer.err, "launch asks for 2 processes, and this is one of 8 that torchrun started. Leave launch.* out."
    )
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_tasks_of_srun_need_a_meeting_place(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    answer = command("scale=smoke")
    refused(answer.code, answer.out, answer.err, "srun started several tasks, and SLURM_STEP_NODELIST names no node. Export MASTER_ADDR, ")
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 says that this is one of 4 processes, and RANK is not set. Start them with torchrun, or "),
        (
            {"WORLD_SIZE": "4", "RANK": "1", "MASTER_PORT": "1"},
            "WORLD_SIZE=4 says that this is one of 4 processes, and MASTER_ADDR is not ",
        ),
        ({"WORLD_SIZE": "many"}, "The environment variable WORLD_SIZE must be a whole number, got 'many'."),
    ],
)
def test_variables_of_a_launcher_that_is_not_there_are_one_sentence(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    answer = command("scale=smoke")
    refused(answer.code, answer.out, answer.err, reason)
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_an_existing_folder_survives_a_refusal(command, tmp_path: Path) -> None:
    kept = tmp_path / "multirun" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    assert command("paradigm.steps=0").code == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
    assert not (kept.parent / "main").exists()


def test_a_defect_of_the_program_still_shows_its_traceback(command, monkeypatch: pytest.MonkeyPatch) -> None:
    from percasym.launch import main as launch

    def broken(settings: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(launch, "start", broken)
    answer = command()
    assert answer.code == 1
    assert "Traceback" in answer.err


def test_an_interruption_says_how_to_go_on(command, monkeypatch: pytest.MonkeyPatch) -> None:
    from percasym.launch import main as launch

    def stopped(settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "start", stopped)
    answer = command()
    assert answer.code == 130
    assert answer.err == "Interrupted. The same command resumes multirun/main/sudoku-qwen3vl-sft-none/seed0.\n"


@pytest.mark.parametrize("what", ["misspelt group", "no such task", "class of another library"])
def test_a_real_process_answers_alike(tmp_path: Path, what: str) -> None:
    words, begins = WRONG[what]
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    refused(done.returncode, done.stdout, done.stderr, begins)
    assert list(tmp_path.iterdir()) == []
