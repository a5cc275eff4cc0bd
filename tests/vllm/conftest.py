"""The tests of the real vLLM, in the environment of `make test-vllm`; elsewhere they are not collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]
