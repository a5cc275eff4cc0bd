"""A stand-in for torchvision in the test environment of vLLM: its names can be imported, and using one raises.

The wheels of torchvision on PyPI are built against CUDA and fail beside a CPU build of torch ("operator torchvision::nms does not exist").
vLLM and the video processors of transformers import it; text and pictures need nothing from it.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.0.0"


def placeholder(module: str, name: str) -> Any:
    """A class with this name that cannot be made or called. Raises AttributeError for special names, which import machinery looks up."""
    if name.startswith("__"):
        raise AttributeError(name)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(f"{module}.{name} was used, and this environment has no torchvision (tests/vllm/stubs).")

    return type(name, (), {"__module__": module, "__init__": refuse, "__class_getitem__": classmethod(lambda cls, _: cls)})


def __getattr__(name: str) -> Any:
    return placeholder(__name__, name)
