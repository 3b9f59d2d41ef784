"""The checker of annotations that the tests put on every function of bowerbird (see conftest.py)."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception

# As for type checkers, an int is a good float.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with arguments and result checked at every call.

    Unless an annotation cannot be asked of a value: a Protocol without @runtime_checkable, or Self.
    """
    try:
        return _check(function)
    except (BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception):
        return function
