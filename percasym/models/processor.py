"""A checkpoint's processor for pictures and text, without torchvision.

`AutoProcessor` refuses families whose processor takes videos, too (Qwen3-VL, InternVL), where torchvision is not installed. This loads the
same class with its tokenizer and its image processor on the PIL backend, and without videos.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from percasym.models import checkpoint, locate
from percasym.models.locate import CheckpointError

if TYPE_CHECKING:
    from transformers import ProcessorMixin


@lru_cache(maxsize=4)
def processor(path: str) -> ProcessorMixin:
    """The processor of a checkpoint; `apply_chat_template`, `__call__(images=, text=)` and `save_pretrained` work as ever.

    Raises CheckpointError where the checkpoint has no processor class, or its parts cannot be loaded.
    """
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        from transformers import AutoProcessor

        checkpoint.tokenizer(path)  # Checked before another class reads the same files.
        return checkpoint.loaded(AutoProcessor.from_pretrained, path, trust_remote_code=False)
    tokenizer, cls = checkpoint.tokenizer(path), _class(path)
    own = _settings(path, cls)
    template = tokenizer.chat_template or own.pop("chat_template", None)
    parts = {"image_processor": checkpoint.image_processor(path), "tokenizer": tokenizer, "chat_template": template}
    try:
        return without_videos(cls)(**{**own, **parts})
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise CheckpointError(f"The processor of {path} cannot be made from its parts ({error}).") from error


def without_videos(cls: type[Any]) -> type[Any]:
    """The processor class with no video processor; the same class where it takes none."""
    if "video_processor" not in cls.get_attributes():
        return cls

    def __init__(self: Any, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **options: Any) -> None:  # noqa: N807
        cls.__init__(self, image_processor, tokenizer, None, chat_template=chat_template, **options)

    own = inspect.signature(cls.__init__)  # What is saved and what are parts is read from it.
    __init__.__signature__ = own.replace(parameters=[one for name, one in own.parameters.items() if name != "video_processor"])  # type: ignore[attr-defined]
    return type(cls.__name__, (cls,), {"__init__": __init__, "__module__": cls.__module__, "__doc__": cls.__doc__})


def _settings(path: str, cls: type[Any]) -> dict[str, Any]:
    """The settings of a checkpoint's processor (processor_config.json) that its class takes, without its parts."""
    found = checkpoint.loaded(lambda where: cls.get_processor_dict(where)[0], locate.origin(path))
    taken = inspect.signature(cls.__init__).parameters.keys() - {"self", "kwargs", *cls.get_attributes()}
    return {name: value for name, value in found.items() if name in taken}


def _class(path: str) -> type[Any]:
    """The processor class of a checkpoint's model type."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    kind = checkpoint.config(path).model_type
    name = PROCESSOR_MAPPING_NAMES.get(kind)
    if name is None:
        raise CheckpointError(f"{path} is of type {kind}, which has no processor for pictures and text in transformers.")
    return getattr(transformers, name)
