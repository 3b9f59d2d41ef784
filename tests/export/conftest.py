"""What the tests of exports share."""

from collections.abc import Iterator
from functools import cache

import pytest

from later import later

registration = later("torch.onnx._internal.exporter._registration")


@pytest.fixture(scope="module")
def one_registry() -> Iterator[None]:
    """The exporter compiles its 500 functions of ONNX anew for each graph, which costs more than a small graph does.

    Here it compiles them once: nothing adds to them but custom translations, which we have none of.
    """
    kept = registration.ONNXRegistry
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "from_torchlib", staticmethod(cache(kept.from_torchlib)))
        yield
