"""Transforms of PIL pictures and tensors, by the names that programs use."""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F


class InterpolationMode(Enum):
    """How to resize."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"
    BOX = "box"


def to_tensor(picture: Any) -> torch.Tensor:
    """A picture of bytes becomes a float tensor in [0, 1], channels first."""
    if isinstance(picture, torch.Tensor):
        return picture
    array = np.array(picture)
    array = array[..., None] if array.ndim == 2 else array
    tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
    return tensor.float() / 255 if array.dtype == np.uint8 else tensor


def to_pil_image(tensor: Any, mode: Any = None) -> Any:
    """A tensor in [0, 1] or an array of bytes becomes a picture."""
    if isinstance(tensor, torch.Tensor):
        array = (tensor.detach().float().clamp(0, 1) * 255).byte().cpu().numpy()
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    else:
        array = np.asarray(tensor)
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)


def normalize(tensor: torch.Tensor, mean: Any, std: Any, inplace: bool = False) -> torch.Tensor:
    """``(x - mean) / std`` for each channel."""
    mean, std = torch.as_tensor(mean, dtype=tensor.dtype), torch.as_tensor(std, dtype=tensor.dtype)
    if mean.numel() > tensor.shape[-3] == 1:  # what older versions did with three means for a grey picture
        mean, std = mean.reshape(-1)[:1], std.reshape(-1)[:1]
    return (tensor - mean.reshape(-1, 1, 1)) / std.reshape(-1, 1, 1)


def resize(picture: Any, size: Any, *args: Any, **kwargs: Any) -> Any:
    """To (height, width), or the shorter side to a number."""
    if isinstance(picture, torch.Tensor):
        target = _target(size, picture.shape[-2:])
        batch = picture if picture.ndim == 4 else picture[None]
        out = F.interpolate(batch.float(), target, mode="bilinear", antialias=True)
        return out if picture.ndim == 4 else out[0]
    height, width = _target(size, (picture.height, picture.width))
    return picture.resize((width, height))


def _target(size: Any, now: Sequence[int]) -> tuple[int, int]:
    if isinstance(size, int) or len(size) == 1:
        size = size if isinstance(size, int) else size[0]
        scale = size / min(now)
        return round(now[0] * scale), round(now[1] * scale)
    return int(size[0]), int(size[1])


def center_crop(picture: Any, size: Any) -> Any:
    """The middle of a picture; what lies outside is black."""
    height, width = (size, size) if isinstance(size, int) else (tuple(size) * 2)[:2]
    if isinstance(picture, torch.Tensor):
        top, left = (picture.shape[-2] - height) // 2, (picture.shape[-1] - width) // 2
        return picture[..., max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


class Compose:
    """One transform after another."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, picture: Any) -> Any:
        for transform in self.transforms:
            picture = transform(picture)
        return picture


class _Transform(nn.Module):
    """A transform that is also a module, as in the original; by itself it leaves pictures as they are."""

    apply: Callable[..., Any] = staticmethod(lambda picture, *args, **kwargs: picture)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.args, self.kwargs = args, kwargs

    def forward(self, picture: Any) -> Any:
        return type(self).apply(picture, *self.args, **self.kwargs)


class ToTensor:
    """See ``to_tensor``."""

    def __call__(self, picture: Any) -> torch.Tensor:
        return to_tensor(picture)


class PILToTensor(ToTensor):
    """Bytes stay bytes."""

    def __call__(self, picture: Any) -> torch.Tensor:
        return (to_tensor(picture) * 255).round().byte()


class ToPILImage:
    """See ``to_pil_image``."""

    def __init__(self, mode: Any = None) -> None:
        self.mode = mode

    def __call__(self, tensor: Any) -> Any:
        return to_pil_image(tensor)


class Normalize:
    """See ``normalize``."""

    def __init__(self, mean: Any, std: Any, inplace: bool = False) -> None:
        self.mean, self.std = mean, std

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return normalize(tensor, self.mean, self.std)


def _kind(name: str, apply: Callable[..., Any]) -> type[_Transform]:
    return type(name, (_Transform,), {"apply": staticmethod(apply)})


def _flipped(picture: Any, *_: Any, **__: Any) -> Any:
    if torch.rand(()) < 0.5:
        return picture
    if isinstance(picture, torch.Tensor):
        return picture.flip(-1)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _grey(picture: Any, num_output_channels: int = 1) -> Any:
    if isinstance(picture, torch.Tensor):
        return picture.mean(-3, keepdim=True).expand(*picture.shape[:-3], num_output_channels, *picture.shape[-2:])
    grey = picture.convert("L")
    return grey if num_output_channels == 1 else Image.merge("RGB", (grey,) * 3)


def _padded(picture: Any, padding: Any, *_: Any, **__: Any) -> Any:
    sides = (padding,) * 4 if isinstance(padding, int) else (tuple(padding) * 4)[:4]
    return F.pad(to_tensor(picture), sides)


def _floats(picture: Any, *_: Any, **__: Any) -> Any:
    """Bytes become floats in [0, 1]."""
    return picture.float() / 255 if picture.dtype == torch.uint8 else picture.float()


Resize = _kind("Resize", resize)
CenterCrop, RandomCrop = (  # the latter here without chance: the middle
    _kind(name, lambda picture, size, *_, **__: center_crop(picture, size)) for name in ("CenterCrop", "RandomCrop")
)
RandomResizedCrop = _kind(  # here without chance: resized
    "RandomResizedCrop", lambda p, size, *_, **__: resize(p, (size, size) if isinstance(size, int) else size)
)
RandomHorizontalFlip = _kind("RandomHorizontalFlip", _flipped)
Grayscale, Pad = _kind("Grayscale", _grey), _kind("Pad", _padded)
ConvertImageDtype, ToDtype = _kind("ConvertImageDtype", _floats), _kind("ToDtype", _floats)


class Lambda:
    """A function of the user's."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = self.lambd = function

    def __call__(self, picture: Any) -> Any:
        return self.function(picture)


class functional:
    """The functions beside the classes."""

    to_tensor, to_pil_image, normalize = staticmethod(to_tensor), staticmethod(to_pil_image), staticmethod(normalize)
    resize, center_crop = staticmethod(resize), staticmethod(center_crop)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name == "v2":
        import sys

        return sys.modules[__name__]
    return type(name, (_Transform,), {})
