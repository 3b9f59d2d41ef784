"""What a layer costs: multiplications and additions of one forward pass, from observed shapes and layer settings.

A multiplication and an addition count as two operations, bias and activations as none (they are a thousandth of it):

    linear        2 · outputs · in_features
    convolution   2 · outputs · in_channels/groups · kernel
    transposed    2 · inputs · out_channels/groups · kernel
    attention     4 · batch · length² · width of nn.MultiheadAttention, besides its projections
"""

import math
import re

from bowerbird.reading.explain.study import Study
from bowerbird.reading.facts import Fact, first_shape, shape_of

_NUMBERS = re.compile(r"-?\d+")


def note(study: Study) -> None:
    """Adds ``block.cost`` of each layer that was called, and ``network.cost`` of each network."""
    for tree in study.roots:
        total, rows = 0, []
        for row in tree["modules"] or []:
            path = f"{tree.subject}.{row['path']}" if row["path"] else tree.subject
            io = study.facts.first("module.io", path)
            operations = None if io is None else of_layer(row["class"], row["repr"], io)
            if operations and io is not None:
                study.add("block.cost", path, {"operations": operations, "shape": shape_of(io["out"])}, like=io)
                total += operations
                rows.append((operations, path))
        if total:
            io = study.facts.first("module.io", tree.subject)
            taken = first_shape(io["in"]) if io is not None else None
            largest, name = max(rows)
            value = {"operations": total, "shape": taken, "largest": name, "share": round(largest / total, 3)}
            study.add("network.cost", tree.subject, value, like=tree)


def of_layer(kind: str, settings: str, io: Fact) -> int | None:
    """Operations of one call, None for layers whose cost is not counted."""
    taken, given = first_shape(io["in"]), shape_of(io["out"])
    if not taken or not given:
        return None
    numbers = [int(n) for n in _NUMBERS.findall(settings)]
    if kind == "Linear":
        return 2 * math.prod(given) * taken[-1]
    if re.fullmatch(r"Conv[123]d", kind) and len(numbers) > 2:
        return 2 * math.prod(given) * taken[1] * _kernel(settings) // _groups(settings)
    if re.fullmatch(r"ConvTranspose[123]d", kind) and len(given) > 1:
        return 2 * math.prod(taken) * given[1] * _kernel(settings) // _groups(settings)
    if kind == "MultiheadAttention" and len(taken) == 3:
        batch_first = "batch_first=True" in settings
        batch, length = (taken[0], taken[1]) if batch_first else (taken[1], taken[0])
        return 8 * batch * length * taken[2] ** 2 + 4 * batch * length**2 * taken[2]
    return None


def _kernel(settings: str) -> int:
    found = re.search(r"kernel_size=\(([\d, ]+)\)", settings)
    return math.prod(int(n) for n in _NUMBERS.findall(found[1])) if found else 1


def _groups(settings: str) -> int:
    found = re.search(r"groups=(\d+)", settings)
    return int(found[1]) if found else 1
