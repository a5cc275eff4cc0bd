"""The lock (requirements/) agrees with pyproject.toml, is complete, has a hash for every file and names no place; licences are listed."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "requirements"))

import licences  # noqa: E402, beside the lock
import lock  # noqa: E402

HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: (ROOT / "requirements" / name).read_text(encoding="utf-8") for name in lock.FILES}


@pytest.fixture(scope="module")
def versions(texts: dict[str, str]) -> dict[str, list[str]]:
    """Package -> its locked versions; one may differ with the version of Python."""
    return versions_in(texts.values())


def versions_in(texts: Iterable[str]) -> dict[str, list[str]]:
    blocks = [block for text in texts for block in lock.parsed(text).items()]
    return {canonicalize_name(name): [licences.version(entry) for entry in entries] for name, entries in blocks}


def asked() -> list[Requirement]:
    """What pyproject.toml asks for, with every extra that is locked and what builds it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    lines = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    lines += [line for name, extra in extras.items() if name not in lock.UNLOCKED for line in extra]
    return [found for line in lines if (found := Requirement(line)).name != "percasym"]


def unmet(requirements: Iterable[Requirement], versions: dict[str, list[str]]) -> list[str]:
    """The requirements that no locked version, or not every one, satisfies."""
    found = []
    for requirement in requirements:
        held = versions.get(canonicalize_name(requirement.name))
        if not held or not all(requirement.specifier.contains(version, prereleases=True) for version in held):
            found.append(f"{requirement} (locked: {', '.join(held or ['not at all'])})")
    return found


def test_the_lock_has_what_pyproject_asks_for(versions: dict[str, list[str]]) -> None:
    assert unmet(asked(), versions) == [], "run `make lock`"


def test_there_is_one_lock() -> None:
    assert not (ROOT / "constraints.txt").exists(), "write what is needed into pyproject.toml, and run `make lock`"


def test_the_lock_is_complete(versions: dict[str, list[str]]) -> None:
    """What each installed package of it needs is in it, too: pip installs it without looking for more."""
    wrong = []
    for package in distributions():
        if canonicalize_name(package.name) not in versions:
            continue
        needs = [Requirement(line) for line in package.requires or ()]
        here = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
        wrong += [f"{package.name} needs {line}" for line in unmet(here, versions)]
    assert wrong == [], "run `make lock`"


def test_every_file_has_a_hash_and_no_line_names_a_place(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        for entries in lock.parsed(text).values():
            assert all(HASH.search(entry) for entry in entries), name
        lines = [line.strip().rstrip("\\").strip() for line in text.splitlines() if not line.startswith("#")]
        assert [line for line in lines if not re.fullmatch(rf"[\w.-]+==\S+(?: ; .*)?|{HASH.pattern}", line)] == [], name
        assert not re.search(r"://|index-url|find-links|/work|@", text), name


def test_torch_is_one_release_for_every_build(texts: dict[str, str], versions: dict[str, list[str]]) -> None:
    assert versions["torch"] == [lock.TORCH]
    assert all(digest in texts["torch.txt"] for digest in lock.CPU_BUILDS[lock.TORCH])
    assert not [name for name in versions_in([texts["wheels.txt"]]) if lock.CUDA.match(name)]


def test_the_licence_of_every_locked_package_is_listed(versions: dict[str, list[str]]) -> None:
    rows = re.findall(r"^\| ([\w.-]+) \| ([^|]+) \| ([^|]+) \|", licences.PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    listed = {canonicalize_name(name): held.split(", ") for name, held, _ in rows if name not in ("package", "---")}
    assert listed == versions, "run `make licences`"
    assert all(licence.strip() for *_, licence in rows)


def test_a_file_is_read_and_distributed_as_it_should_be() -> None:
    entry = "{}==1 \\\n    --hash=sha256:" + "0" * 64 + "\n"
    dev = {name: [entry.format(name)] for name in ("torch", "nvidia-nccl-cu13", "triton", "rich", *lock.WITHOUT_WHEELS)}
    docs = {"rich": dev["rich"], "mkdocs": [entry.format("mkdocs")]}
    files = lock.distributed(dev, docs, dev | docs | {"six": [entry.format("six")]})
    assert {name: sorted(blocks) for name, blocks in files.items()} == {
        "torch.txt": ["torch"],
        "cuda.txt": ["nvidia-nccl-cu13", "triton"],
        "wheels.txt": ["rich"],
        "source.txt": sorted(lock.WITHOUT_WHEELS),
        "docs.txt": ["mkdocs"],
        "extras.txt": ["six"],
    }
    assert len(HASH.findall(files["torch.txt"]["torch"][0])) == 2, "the hashes of the index, and that of the CPU build"


def test_the_checks_can_fail() -> None:
    held = versions_in(["a==1.0 \\\n    --hash=sha256:00\nb==2 ; python_version < '3.12' \\\n    --hash=sha256:00\nb==3 \\\n"])
    assert held == {"a": ["1.0"], "b": ["2", "3"]}
    assert unmet([Requirement("a>=1"), Requirement("B>=3"), Requirement("c")], held) == ["B>=3 (locked: 2, 3)", "c (locked: not at all)"]
