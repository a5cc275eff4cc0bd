"""Write docs/licences.md: the licence of every locked package, as its own metadata states it.

    make licences

Of an installed package the metadata are read there; of others (another system's, CUDA's, those of other extras) pip reads them from the
index and installs nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from lock import FILES, HERE, ROOT, Blocks, parsed

PAGE = ROOT / "docs" / "licences.md"
LONGEST = 100
"""Characters of a field `License` that names one; longer ones hold its text."""
NOT_STATED = "not stated in its metadata"
HEAD = """# Licences

Written by `make licences`. percasym is under Apache-2.0 ([LICENSE](../LICENSE)). Neither its wheel nor this repository
contains a file of these packages: pip installs them. Named is what each package states in its own metadata. The
vendored DejaVu fonts have [their own licence](../percasym/assets/fonts/LICENSE-DejaVu.txt).

"""
WHERE = {
    "torch.txt": "runtime, tests",
    "wheels.txt": "runtime, tests",
    "source.txt": "runtime, tests",
    "cuda.txt": "GPU build of torch",
    "docs.txt": "documentation",
    "extras.txt": "other extras",
}


def main(pip: str) -> None:
    """Write the page; `pip` is a Python whose pip is new enough (23.2 leaves licence expressions out of its report)."""
    locked = {name: parsed((HERE / name).read_text(encoding="utf-8")) for name in FILES}
    found = {name: stated for blocks in locked.values() for name in blocks if (stated := installed(name)) is not None}
    found |= reported(pip, [entries for blocks in locked.values() for name, entries in blocks.items() if name not in found])
    PAGE.write_text(page(locked, found), encoding="utf-8")


def page(locked: Mapping[str, Blocks], licences: Mapping[str, str]) -> str:
    """The whole page."""
    rows = [
        (name, ", ".join(map(version, entries)), licences.get(name, NOT_STATED), WHERE[file])
        for file, blocks in locked.items()
        for name, entries in blocks.items()
    ]
    lines = ["| package | version | licence | for |", "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in sorted(rows))]
    return HEAD + "\n".join(lines) + "\n"


def version(entry: str) -> str:
    """The version of an entry of a lock.

    >>> version("a==1.2 ; sys_platform == 'win32'")
    '1.2'
    """
    return entry.partition("==")[2].split()[0]


def installed(name: str) -> str | None:
    """The licence of an installed package; None where it is not installed."""
    try:
        fields = metadata(name)
    except PackageNotFoundError:
        return None
    classifiers = fields.get_all("Classifier") or []
    return licence({"license_expression": fields["License-Expression"], "license": fields["License"], "classifier": classifiers})


def reported(pip: str, missing: Iterable[Iterable[str]]) -> dict[str, str]:
    """The licences of packages that are not installed, by pip's report of an installation that it does not make."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, out = Path(folder) / "wanted.txt", Path(folder) / "report.json"
        entries = [next(iter(entries)) for entries in missing]
        wanted.write_text("".join(re.sub(r" ;[^\\\n]*", " ", entry) for entry in entries), encoding="utf-8")  # For any system.
        options = ["--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([pip, "-m", "pip", "install", *options, "--report", str(out), "--requirement", str(wanted)], check=True)
        packages = json.loads(out.read_text(encoding="utf-8"))["install"]
    return {canonical(package["metadata"]["name"]): licence(package["metadata"]) for package in packages}


def licence(fields: Mapping[str, Any]) -> str:
    """The licence that metadata state: as an expression, in the field of that name, or in classifiers.

    >>> licence({"license": "UNKNOWN", "classifier": ["License :: OSI Approved :: MIT License"]}), licence({})
    ('MIT License', 'not stated in its metadata')
    """
    named = [text for key in ("license_expression", "license") if (text := fields.get(key)) and fit(text)]
    classified = [line.rpartition(" :: ")[2] for line in fields.get("classifier") or () if line.startswith("License :: ")]
    return (named or classified or [NOT_STATED])[0].strip().replace("|", "/")


def fit(text: str) -> bool:
    """Whether the text of a field is the name of a licence."""
    return len(text.strip()) <= LONGEST and "\n" not in text.strip() and text.strip().upper() not in ("", "UNKNOWN")


def canonical(name: str) -> str:
    """The name as a lock spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(*sys.argv[1:])
