"""Lock every package that `make` installs: its version, and the hashes of all its files in the index.

    make lock                        # after a change of pyproject.toml: versions that still fit are kept
    make lock UPGRADE=--upgrade      # the newest versions that fit; torch stays

uv resolves (`uv pip compile --universal`: Python 3.11 and newer, Linux and macOS alike). This script distributes the result over files
that pip can install with `--require-hashes --no-deps`, because torch has several builds and some packages have no wheel:

    torch.txt      torch alone: the builds of PyPI, and the CPU build that the tests ran on
    cuda.txt       what PyPI's build of torch for Linux needs and no other does
    wheels.txt     everything else of the extra `dev`
    source.txt     packages without wheels, built from their sources beside an installed torch
    docs.txt       what the extra `docs` adds (`make site`)
    extras.txt     what the other extras add (`make bench`)
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FILES = ("torch.txt", "cuda.txt", "wheels.txt", "source.txt", "docs.txt", "extras.txt")
TORCH = "2.13.0"
"""The release that the tests and figures ran on; `>=2.13` of pyproject.toml is for users."""
CPU_BUILDS = {"2.13.0": ("6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",)}
"""Hashes of CPU builds, which are not in PyPI: torch-<version>+cpu, CPython 3.11, x86-64 Linux."""
BUILD_TOOLS = ("setuptools", "wheel", "ninja", "py-cpuinfo", "packaging")
"""What builds DeepSpeed, antlr4 and percasym itself: nothing is fetched for a build."""
WITHOUT_WHEELS = ("antlr4-python3-runtime", "deepspeed", "docopt")
"""Where another one comes in, `make` says so: everything else is installed with --only-binary."""
UNLOCKED = ("vllm",)
"""Extras that need other versions and have an environment of their own (tests/vllm/constraints.txt)."""
EVERYWHERE = " ; sys_platform == 'darwin' or sys_platform == 'linux'"
"""The marker of what every system needs for which the lock is (`tool.uv.environments`)."""
CUDA = re.compile(r"(nvidia|cuda)-|triton$")

Blocks = Mapping[str, Sequence[str]]
"""Name of a package -> its entries, one for each version that some Python or system needs."""


def main(options: Sequence[str]) -> None:
    """Write all files; `options` are added to uv's."""
    held = "".join((HERE / name).read_text(encoding="utf-8") for name in FILES if (HERE / name).is_file())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    whole = compiled([extra for extra in extras if extra not in UNLOCKED], held, options)
    chosen = "".join(entry for entries in whole.values() for entry in entries)
    for name, blocks in distributed(compiled(["dev"], chosen, []), compiled(["docs"], chosen, []), whole).items():
        (HERE / name).write_text(header(name) + "".join(entry for entries in blocks.values() for entry in entries), encoding="utf-8")


def compiled(extras: Iterable[str], held: str, options: Sequence[str]) -> dict[str, list[str]]:
    """What uv resolves for these extras; versions of `held`, an earlier lock, are kept where they fit."""
    with tempfile.TemporaryDirectory() as folder:
        out, more = Path(folder) / "lock.txt", Path(folder) / "more.in"
        out.write_text(held, encoding="utf-8")
        more.write_text("\n".join([*BUILD_TOOLS, f"torch=={TORCH}"]), encoding="utf-8")
        chosen = [f"--extra={extra}" for extra in extras]
        universal = ["--universal", "--python-version=3.11", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", str(more), *chosen, *universal]
        subprocess.run([*command, "--output-file", str(out), *options], cwd=ROOT, check=True)
        return parsed(out.read_text(encoding="utf-8").replace(EVERYWHERE, ""))


def parsed(text: str) -> dict[str, list[str]]:
    """The entries of a requirements file by package, comments left out.

    >>> sorted(parsed("# a comment\\na==1 \\\\\\n    --hash=sha256:00\\nb==2 ; python_version < '4' \\\\\\n    --hash=sha256:01\\n"))
    ['a', 'b']
    """
    found: dict[str, list[str]] = {}
    lines = [line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#")]
    for entry in re.split(r"(?m)^(?=\S)", "".join(lines)):
        if match := re.match(r"[\w.-]+(?===)", entry):
            found.setdefault(match[0], []).append(entry)
    return found


def distributed(dev: Blocks, docs: Blocks, whole: Blocks) -> dict[str, Blocks]:
    """The entries of each file."""
    torch = [with_builds(entry) for entry in dev["torch"]]
    cuda = {name: entries for name, entries in dev.items() if CUDA.match(name)}
    source = {name: dev[name] for name in WITHOUT_WHEELS if name in dev}
    wheels = {name: entries for name, entries in dev.items() if name not in {"torch", *cuda, *source}}
    pages = {name: entries for name, entries in docs.items() if name not in dev}
    extras = {name: entries for name, entries in whole.items() if name not in {*dev, *pages}}
    return dict(zip(FILES, ({"torch": torch}, cuda, wheels, source, pages, extras), strict=True))


def with_builds(entry: str) -> str:
    """The entry of torch with the hashes of its CPU builds, each once: uv keeps those of an earlier lock."""
    name, *digests = re.findall(r"^[^\\\n]+|--hash=sha256:[0-9a-f]+", entry)
    every = dict.fromkeys([*digests, *(f"--hash=sha256:{digest}" for digest in CPU_BUILDS[TORCH])])
    return " \\\n    ".join([name.strip(), *every]) + "\n"


def header(name: str) -> str:
    """The first line of a file."""
    what = re.search(rf"^    {re.escape(name)} +(.*)$", __doc__ or "", flags=re.MULTILINE)
    assert what is not None
    return f"# By `make lock`: {what[1]}\n"


if __name__ == "__main__":
    main(sys.argv[1:])
