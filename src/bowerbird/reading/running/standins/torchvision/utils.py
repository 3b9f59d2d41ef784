"""Pictures that the program saves or shows: their range is recorded, and saved ones are written."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

_SHOWN: list[Callable[[str, Any, dict[str, Any]], None]] = []


def watch(record: Callable[[str, Any, dict[str, Any]], None]) -> None:
    """``record(function, pictures, settings)`` is told of everything that is saved or shown."""
    _SHOWN[:] = [record]


def shown(function: str, pictures: Any, settings: dict[str, Any]) -> None:
    """Tells whoever watches."""
    for record in _SHOWN:
        record(function, pictures, settings)


def make_grid(
    tensor: Any, nrow: int = 8, padding: int = 2, normalize: bool = False, value_range: Any = None,
    scale_each: bool = False, pad_value: float = 0.0, **kwargs: Any,
) -> torch.Tensor:  # fmt: skip
    """Pictures side by side, three channels."""
    shown("make_grid", tensor, {"normalize": normalize, "value_range": value_range or kwargs.get("range")})
    return _grid(tensor, nrow, padding, normalize, value_range or kwargs.get("range"), pad_value)


def _grid(tensor: Any, nrow: int, padding: int, normalize: bool, span: Any, pad_value: float) -> torch.Tensor:
    batch = torch.stack(list(tensor)) if isinstance(tensor, list | tuple) else tensor
    if batch.ndim == 2:
        batch = batch[None]
    if batch.ndim == 3:
        batch = batch[None]
    batch = batch.detach().float()
    if batch.shape[1] == 1:
        batch = batch.expand(-1, 3, -1, -1)
    if normalize:
        low, high = span if span else (batch.min(), batch.max())
        batch = ((batch - low) / max(float(high - low), 1e-5)).clamp(0, 1)
    rows = -(-len(batch) // nrow)
    columns = min(nrow, len(batch))
    height, width = batch.shape[2] + padding, batch.shape[3] + padding
    grid = torch.full((batch.shape[1], rows * height + padding, columns * width + padding), pad_value)
    for i, picture in enumerate(batch):
        top, left = (i // nrow) * height + padding, (i % nrow) * width + padding
        grid[:, top : top + batch.shape[2], left : left + batch.shape[3]] = picture
    return grid


def save_image(tensor: Any, fp: Any, format: Any = None, nrow: int = 8, padding: int = 2, **kwargs: Any) -> None:
    """Writes pictures as one file; values outside [0, 1] are cut off, as in the original."""
    span = kwargs.get("value_range") or kwargs.get("range")
    shown("save_image", tensor, {"normalize": kwargs.get("normalize", False), "value_range": span, "name": str(fp)})
    grid = _grid(tensor, nrow, padding, kwargs.get("normalize", False), span, kwargs.get("pad_value", 0.0))
    array = (grid.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    from pathlib import Path

    if isinstance(fp, str | Path):
        Path(fp).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array)).save(fp, format=format)


def draw_bounding_boxes(image: Any, *args: Any, **kwargs: Any) -> Any:
    """Leaves the picture as it is."""
    return image
