"""What all tests of reading share: one warm child, which loads torch once for all of them."""

from collections.abc import Iterator

import pytest

from bowerbird.reading.running.launch import Child, warm


@pytest.fixture(scope="session")
def child() -> Iterator[Child]:
    with warm() as child:
        yield child
