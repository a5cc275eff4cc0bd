"""Exit code 0 where the installed build of torch needs the packages of cuda.txt: PyPI's for Linux does, CPU builds do not."""

import re
import sys
from importlib.metadata import requires

if __name__ == "__main__":
    named = [re.match(r"[\w.-]+", line) for line in requires("torch") or ()]
    sys.exit(not any(name and re.match(r"(nvidia|cuda)-", name[0]) for name in named))
