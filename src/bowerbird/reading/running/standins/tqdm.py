"""A progress bar that shows nothing and lets everything through."""

from collections.abc import Iterator
from typing import Any


class _Accepting(type):
    """A class of which every attribute can be called, and does nothing."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


class tqdm(metaclass=_Accepting):
    """Iterates over what it is given; every method of the real bar is accepted."""

    def __init__(self, iterable: Any = None, *args: Any, total: int | None = None, **kwargs: Any) -> None:
        self.iterable = iterable if iterable is not None else range(total or 0)
        self.total, self.n = total, 0

    def __iter__(self) -> Iterator[Any]:
        return iter(self.iterable)

    def __len__(self) -> int:
        return self.total if self.total is not None else len(self.iterable)

    def __enter__(self) -> "tqdm":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __getitem__(self, index: Any) -> Any:
        return self.iterable[index]

    def update(self, n: int = 1) -> None:
        self.n += n

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        pass

    set_postfix = set_description = set_postfix_str = set_description_str = close = refresh = clear = reset = _nothing

    @staticmethod
    def write(*args: Any, **kwargs: Any) -> None:
        pass


def trange(*args: Any, **kwargs: Any) -> tqdm:
    """``tqdm(range(…))``."""
    return tqdm(range(*args))


auto = notebook = type("auto", (), {"tqdm": tqdm, "trange": staticmethod(trange)})
tqdm_notebook, tnrange = tqdm, trange
