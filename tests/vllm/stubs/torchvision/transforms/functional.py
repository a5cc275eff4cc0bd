from typing import Any

from torchvision import placeholder
from torchvision.transforms import InterpolationMode as InterpolationMode


def __getattr__(name: str) -> Any:
    return placeholder(__name__, name)
