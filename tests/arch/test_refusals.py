"""The check of `tests/conftest.py` that no refusal names a class of this package can fail."""

from __future__ import annotations

import pytest

from percasym.cli import main as cli
from percasym.config.escaping import sentence
from percasym.config.schema import ConfigError
from tests.conftest import checked_refusals, exception_names


def test_names_of_exceptions_are_found() -> None:
    assert exception_names().search("could not be loaded (UnfitFileError: f is not JSON).")
    assert not exception_names().search("could not be loaded (OSError: f is not JSON). balance.weight must lie in [0, 1].")


def test_a_refusal_that_names_one_fails(capsys: pytest.CaptureFixture) -> None:
    def refuse() -> None:
        raise ConfigError("no (UnfitFileError: f)")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "one_line", sentence)  # Not that of this test's own check.
        check = checked_refusals(patch)
        next(check)
        patch.setattr(cli, "_parser", refuse)
        assert cli.main(["plan"]) == 2
        with pytest.raises(AssertionError, match="UnfitFileError"):
            next(check)
        capsys.readouterr()
