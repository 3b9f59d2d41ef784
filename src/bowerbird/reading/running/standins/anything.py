"""An object that accepts everything: what stands for a part of a package that is not installed."""

import dis
import itertools
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any


def _asked_for(frame: FrameType) -> int:
    """How many values an unpacking assignment wants of what it is given: ``a, b = thing`` wants two, a loop none."""
    code, place = frame.f_code.co_code, frame.f_lasti
    return code[place + 1] if dis.opname[code[place]].startswith("UNPACK_SEQUENCE") else 0


def taken_apart(frame: FrameType | None) -> int:
    """Into how many values the line that waits for a call takes its answer apart: ``z, log_det = flow(x)``."""
    while (frame is not None and "torch/nn/modules" in frame.f_code.co_filename.replace("\\", "/")) or _ours(frame):
        frame = frame.f_back if frame is not None else None
    if frame is None:
        return 0
    later = (i for i in dis.get_instructions(frame.f_code) if i.offset > frame.f_lasti and i.opname != "CACHE")
    following = next(iter(itertools.islice(later, 1)), None)
    return int(following.argval) if following is not None and following.opname == "UNPACK_SEQUENCE" else 0


def _ours(frame: FrameType | None) -> bool:
    return frame is not None and "bowerbird/reading/running" in frame.f_code.co_filename.replace("\\", "/")


_CUTTING = ("tokenize", "word_tokenize", "wordpunct_tokenize", "sent_tokenize", "cut", "lcut", "tokenise")


class Anything:
    """Callable (what cuts a text gives its words), iterable (empty, or as long as an unpacking asks), a context
    manager, a number (zero), a container."""

    def __init__(self, name: str = "stand-in") -> None:
        self.__dict__["_name"] = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and callable(args[0]) and not isinstance(args[0], Anything):
            if getattr(args[0], "__module__", "") not in ("builtins", "numpy", "torch"):
                return args[0]  # used as a decorator
        if args and isinstance(args[0], str) and self._name.rpartition(".")[2] in _CUTTING:
            return args[0].split()
        return Anything(f"{self._name}()")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Anything(f"{self._name}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __getitem__(self, key: Any) -> "Anything":
        return Anything(f"{self._name}[…]")

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter([Anything(f"{self._name}[{i}]") for i in range(_asked_for(sys._getframe(1)))])

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> "Anything":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __float__(self) -> float:
        return 0.0

    def __index__(self) -> int:
        """The size that its name asks for (``tokenizer.vocab_size``), else zero."""
        from bowerbird.reading.running.standins import fragments

        name = self._name.rpartition(".")[2]
        value = fragments.setting(name) if fragments.known(name) else 0
        return value if isinstance(value, int) else 0

    __int__ = __index__

    def __instancecheck__(self, thing: Any) -> bool:
        return False

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return () if any(isinstance(base, type) for base in bases) or AnyBase in bases else (AnyBase,)

    def __str__(self) -> str:
        return f"<stand-in {self._name}>"

    __repr__ = __str__

    def __fspath__(self) -> str:
        return "stand-in"

    def __format__(self, spec: str) -> str:
        return str(self)

    def __contains__(self, item: Any) -> bool:
        return False

    def _same(self, *_: Any) -> "Anything":
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _same
    __iadd__ = __isub__ = __imul__ = __neg__ = __matmul__ = __rmatmul__ = __abs__ = __pow__ = __rpow__ = _same
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __and__ = __or__ = __invert__ = _same

    def __lt__(self, other: Any) -> bool:
        return bool(0 < other)

    def __gt__(self, other: Any) -> bool:
        return bool(0 > other)

    def __le__(self, other: Any) -> bool:
        return bool(0 <= other)

    def __ge__(self, other: Any) -> bool:
        return bool(0 >= other)

    def __round__(self, digits: int = 0) -> int:
        return 0


class _AnyClass(type):
    """A class of which every attribute is accepted."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(f"{cls.__name__}.{name}")


class AnyBase(metaclass=_AnyClass):
    """What a program's class derives from when its base class is not installed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(f"{type(self).__name__}.{name}")
