"""A checkpoint's processor for pictures and text, without torchvision.

`AutoProcessor` refuses families whose processor takes videos, too (Qwen3-VL, InternVL), where torchvision is not installed. This loads the
same class with its tokenizer and its image processor on the PIL backend, and without videos.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from percasym.models import checkpoint

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

        return AutoProcessor.from_pretrained(path, trust_remote_code=False)
    tokenizer = checkpoint.tokenizer(path)
    parts = {"image_processor": checkpoint.image_processor(path), "tokenizer": tokenizer, "chat_template": tokenizer.chat_template}
    try:
        return without_videos(_class(path))(**parts)
    except (AttributeError, TypeError, ValueError) as error:
        raise checkpoint.CheckpointError(f"The processor of {path} cannot be made from its parts ({error}).") from error


def without_videos(cls: type[Any]) -> type[Any]:
    """The processor class with no video processor; the same class where it takes none."""
    if "video_processor" not in cls.get_attributes():
        return cls

    def __init__(self: Any, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **options: Any) -> None:  # noqa: N807
        cls.__init__(self, image_processor, tokenizer, None, chat_template=chat_template, **options)

    return type(cls.__name__, (cls,), {"__init__": __init__, "__module__": cls.__module__, "__doc__": cls.__doc__})


def _class(path: str) -> type[Any]:
    """The processor class of a checkpoint's model type."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    kind = checkpoint.config(path).model_type
    name = PROCESSOR_MAPPING_NAMES.get(kind)
    if name is None:
        raise checkpoint.CheckpointError(f"{path} is of type {kind}, which has no processor for pictures and text in transformers.")
    return getattr(transformers, name)
