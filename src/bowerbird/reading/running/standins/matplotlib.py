"""Pictures that are recorded, not drawn: everything is accepted, ``imshow`` tells what it was given."""

from typing import Any

from bowerbird.reading.running.standins.anything import Anything


class Axes(Anything):
    """Axes, a figure, or the pyplot module: whatever is called on it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return Axes(f"{self._name}()")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Axes(f"{self._name}.{name}")

    def __getitem__(self, key: Any) -> Any:
        return Axes(f"{self._name}[…]")

    def __iter__(self) -> Any:
        return iter([Axes(self._name) for _ in range(64)])

    def imshow(self, image: Any = None, *args: Any, **kwargs: Any) -> Any:
        from bowerbird.reading.running.standins.torchvision.utils import shown

        shown("imshow", image, kwargs)
        return Axes("image")

    imsave_image = imshow

    def subplots(self, nrows: int = 1, ncols: int = 1, *args: Any, **kwargs: Any) -> Any:
        import numpy as np

        if nrows * ncols == 1:
            return Axes("figure"), Axes("axes")
        grid = np.empty((nrows, ncols), dtype=object)
        for place in np.ndindex(grid.shape):
            grid[place] = Axes("axes")
        squeezed = grid.reshape(-1) if 1 in grid.shape and kwargs.get("squeeze", True) else grid
        return Axes("figure"), squeezed


pyplot = Axes("matplotlib.pyplot")
animation = Axes("matplotlib.animation")
use = Axes("matplotlib.use")
rcParams: dict[str, Any] = {}


def rc(*args: Any, **kwargs: Any) -> None:
    """Accepted."""


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return Axes(f"matplotlib.{name}")
