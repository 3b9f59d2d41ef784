"""Rows whose padding counts as tokens to predict."""

from typing import Any

import torch
from torch import Tensor

from bowerbird.data.tokens import Rows

_batch = Rows.batch


def batch(self: Rows, *args: Any) -> dict[str, Tensor]:
    fields = _batch(self, *args)
    return fields | {"counted": torch.ones_like(fields["counted"])}


Rows.batch = batch  # type: ignore[method-assign]
