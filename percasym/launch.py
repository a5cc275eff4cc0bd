"""From a command line to a run: Hydra composes, `resolve` checks, the app works.

Unlike a bare Hydra application, whatever the user got wrong ends as one sentence on stderr with exit
code 2, and leaves no directory behind; only a defect of the program shows a traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from percasym import torchrun
from percasym.config import force_options, resolve, sentence
from percasym.schema import ConfigError
from percasym.torchrun import RankFailedError

if TYPE_CHECKING:
    from percasym.settings import Settings

FAILED, REFUSED, INTERRUPTED = 1, 2, 130  # Python's code for a traceback; argparse's for a wrong command line; 128 + SIGINT.


def main(train: Callable[[], None], conf: Path, argv: Sequence[str]) -> int:
    """Run the Hydra application `train` on `argv`; returns the exit code."""
    sys.argv = [sys.argv[0], *force_options(argv, conf)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its own errors instead of printing them over many lines.
    try:
        train()
    except KeyboardInterrupt:
        return _say("Interrupted before the run began.", INTERRUPTED)
    except SystemExit as done:
        return int(done.code or 0)
    except Exception as error:  # `job` lets none through: this one is Hydra's, about the command line.
        return _say(sentence(error), REFUSED)
    return 0


def job(cfg: DictConfig) -> None:
    """One run of a composed configuration; raises SystemExit unless it ends well, which also ends a sweep."""
    composed = HydraConfig.get()
    path = Path(composed.runtime.output_dir)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())  # Shorter in what people read.
    try:
        settings = resolve(cfg, choices=composed.runtime.choices, path=path)
        start(settings)
    except ConfigError as error:
        _refuse(error, path)
    except KeyboardInterrupt:
        sys.exit(_say(f"Interrupted. The same command resumes {path}.", INTERRUPTED))
    except RankFailedError as error:  # Its traceback is in the run.
        sys.exit(_say(str(error), FAILED))
    except Exception:  # A defect: its traceback, without Hydra's frames around it.
        traceback.print_exc()
        sys.exit(FAILED)


def start(settings: Settings) -> None:
    """Work in this process, alone or as the rank that an outer launcher made it; or start the ranks that `launch.*` asks for."""
    asked, outer = settings.launch.num_ranks, os.environ.get("WORLD_SIZE", "1")
    if asked == 1:
        from percasym import app  # Imports torch: only once the configuration is known to be good.

        return app.run(settings)
    if outer != "1":
        raise ConfigError(f"launch asks for {asked} processes, and this is one of {outer} that torchrun started. Leave launch.* out.")
    try:
        settings.paradigm.rows_per_forward(asked)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return torchrun.run(settings)


def _refuse(error: ConfigError, path: Path) -> NoReturn:
    """Say why, and remove the empty directories that Hydra made for the run that will not be."""
    with suppress(OSError):  # Raised by the first directory that is not empty.
        for directory in (path, *path.parents):
            if directory.samefile(Path.cwd()):
                break
            directory.rmdir()
    sys.exit(_say(str(error), REFUSED))


def _say(text: str, code: int) -> int:
    print(" ".join(text.split()), file=sys.stderr)
    return code
