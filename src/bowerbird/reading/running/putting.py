"""Puts our functions in the place of others: in torch, in the standard library, for the life of this process."""

from typing import Any


def put(holder: Any, **values: Any) -> None:
    """``put(nn.Module, train=ours)``: the attributes of a class or a module become others."""
    for name, value in values.items():
        setattr(holder, name, value)
