"""The tests of the real vLLM, in the environment of `make test-vllm`; elsewhere they are not collected. The stubs are no tests."""

from importlib.util import find_spec

collect_ignore = ["stubs", "measure.py"]
collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]
