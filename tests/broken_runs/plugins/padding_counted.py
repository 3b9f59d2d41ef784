"""Rows whose padding counts as tokens to predict."""

from typing import Any

import torch

from bowerbird.data.tokens import Rows

_batch = Rows.batch


def batch(self: Rows, *args: Any) -> dict[str, Any]:
    fields = _batch(self, *args)
    return fields | {"weight": torch.ones_like(fields["weight"])}


Rows.batch = batch  # type: ignore[method-assign]
