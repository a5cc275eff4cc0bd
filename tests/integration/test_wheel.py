"""The package without its repository: what the wheel holds, and that it trains, audits and reports in an environment of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "requirements"))

import licences  # noqa: E402, beside the lock
import lock  # noqa: E402

MAX_WHEEL_BYTES = 24 * 10**6
"""Most of it are the packaged models, of 4 to 6 MB each."""
TINY = [
    "paradigm.steps=2", "paradigm.batch_size=2", "paradigm.eval_every=0", "evaluation.num_samples=2", "evaluation.num_curve_samples=1",
    "evaluation.max_new_tokens=8", "evaluation.batch_size=2", "hydra.launcher.n_jobs=1",
]  # fmt: skip


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist: `make dist` has built them, or this does."""
    if built := os.environ.get("PERCASYM_DIST"):
        return Path(built).resolve()
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("percasym-*-py3-none-any.whl")
    return found


def packaged() -> set[str]:
    """The files of percasym/ that a wheel needs, by their names there, those of conf/ included."""
    listed = subprocess.run(["git", "ls-files", "percasym", "conf"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    kept = [name for name in listed if name != "percasym/conf" and not name.endswith(".gitkeep")]
    return {name if name.startswith("percasym/") else f"percasym/{name}" for name in kept}


def test_the_wheel_holds_the_package_and_its_configuration_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    assert names == packaged()
    assert {"percasym/conf/config.yaml", "percasym/conf/experiment/demo.yaml", "percasym/models/tiny/qwen3vl/config.json"} <= names
    assert wheel.stat().st_size < MAX_WHEEL_BYTES


def test_the_sdist_holds_what_builds_that_wheel(dist: Path) -> None:
    (sdist,) = dist.glob("percasym-*.tar.gz")
    with tarfile.open(sdist) as file:
        members = [member for member in file.getmembers() if not member.isdir()]
    assert all(member.isfile() for member in members), "no link leads out of it"
    names = {member.name.partition("/")[2] for member in members}
    assert packaged() | {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_citation_is_that_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = re.search(r'__version__ = "(.*)"', (ROOT / "percasym" / "__init__.py").read_text(encoding="utf-8"))
    assert version is not None
    assert (cited["version"], cited["license"]) == (version[1], project["license"])
    assert {"cff-version", "message", "title", "authors"} <= set(cited)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment with the wheel alone, installed where no compiler is on the path."""
    place = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    tools = place / "tools"
    tools.mkdir()
    for name in ("sh", "env", "uname", "git"):  # All there is besides Python: no gcc, cc, make or ninja.
        found = subprocess.run(["which", name], capture_output=True, text=True, check=False).stdout.strip()
        if found:
            (tools / name).symlink_to(found)
    scripts = place / "venv" / "bin"
    versions = [f"{name}=={licences.version(entries[0])}" for file in lock.FILES for name, entries in blocks(file).items()]
    (place / "constraints.txt").write_text("\n".join(versions), encoding="utf-8")
    began = time.monotonic()
    command = [scripts / "python", "-m", "pip", "install", "--quiet", "--constraint", place / "constraints.txt", wheel]
    done = subprocess.run(command, env=os.environ | {"PATH": f"{scripts}:{tools}"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(f"pip install of {wheel.name}: {time.monotonic() - began:.0f} s")
    return scripts


def blocks(file: str) -> dict[str, list[str]]:
    return lock.parsed((ROOT / "requirements" / file).read_text(encoding="utf-8"))


@pytest.fixture
def percasym(installed: Path, tmp_path: Path):
    """`percasym("audit", ...)`: this command of the environment, in an empty folder, with no compiler and no repository in reach."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
        env = outside | {"PATH": f"{installed}:{installed.parents[1] / 'tools'}", "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
        return subprocess.run([installed / "percasym", *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
def test_the_installed_package_needs_no_deepspeed_and_refuses_it_by_the_name_of_its_extra(percasym, installed: Path) -> None:
    listed = subprocess.run([installed / "python", "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True).stdout
    assert not {"deepspeed", "pytest", "ninja"} & {package["name"] for package in json.loads(listed)}
    refused = percasym("train", "scale=smoke", "engine=deepspeed")
    assert refused.returncode == 2
    assert refused.stderr == (
        'engine=deepspeed needs DeepSpeed, which is not installed: pip install "percasym[deepspeed]", or choose engine=torch.\n'
    )


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel(percasym, tmp_path: Path) -> None:
    done = percasym("demo", *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = sorted(path.parent.name for path in (tmp_path / "multirun" / "demo").glob("*/seed0"))
    assert cells == ["sudoku-internvl35-sft-ngdiff", "sudoku-internvl35-sft-none"]
    page = tmp_path / "multirun" / "demo" / "report" / "report.html"
    assert page.is_file()
    assert done.stdout.rstrip().endswith(f"Page: {page}")
    meta = json.loads((tmp_path / "multirun" / "demo" / cells[0] / "seed0" / "meta.json").read_text())
    assert (meta["status"], meta["git"]) == ("done", None)
    again = percasym("demo", *TINY)
    assert again.returncode == 0
    assert "2 skipped" in again.stdout, "the study is finished"


@pytest.mark.slow
def test_an_audit_and_the_users_own_words_run_from_the_wheel(percasym, tmp_path: Path) -> None:
    audit = percasym("audit", "task=sudoku", "--samples", "8")
    assert audit.returncode == 0, audit.stderr
    assert "perception's share" in audit.stdout
    words = ["task=sudoku", "model=qwen3vl", "paradigm=sft", "balance=ngdiff"]
    small = [word for word in TINY if not word.startswith("hydra")]
    done = percasym("train", *words, *small)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "multirun" / "main" / "sudoku-qwen3vl-sft-ngdiff" / "seed0" / "final" / "model.safetensors").is_file()
