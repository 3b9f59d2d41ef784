"""The seven steps of a reading, in the order of reading; each is a function from what is known to blocks."""

from collections.abc import Callable, Iterator

from bowerbird.reading.explain.reading import Block
from bowerbird.reading.explain.steps import advice, inventory, results, settings, short, structure, training
from bowerbird.reading.explain.writer import Writer

STEPS: dict[str, Callable[[Writer], Iterator[Block]]] = {
    "short": short.write, "advice": advice.write, "training": training.write, "structure": structure.write,
    "settings": settings.write, "results": results.write, "inventory": inventory.write,
}  # fmt: skip
"""By the key of their title."""
FOLDED = ("inventory",)
