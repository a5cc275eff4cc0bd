from enum import Enum
from typing import Any

from torchvision import placeholder


class InterpolationMode(Enum):
    """The names of torchvision's filters, which transformers maps PIL's to."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


from torchvision.transforms import functional as functional  # noqa: E402


def __getattr__(name: str) -> Any:
    return placeholder(__name__, name)
