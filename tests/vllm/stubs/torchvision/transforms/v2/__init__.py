from typing import Any

from torchvision import placeholder
from torchvision.transforms import InterpolationMode as InterpolationMode
from torchvision.transforms.v2 import functional as functional


def __getattr__(name: str) -> Any:
    return placeholder(__name__, name)
