"""Weights to start from: those of a trained run or of an imported model."""

from pathlib import Path

import safetensors.torch
from torch import nn

from bowerbird.errors import BowerbirdError

PER_TOKEN = {"net.embedding.token.weight", "net.head.weight", "net.head.bias"}
"""Tensors with a row per token of the vocabulary."""


def load_weights(model: nn.Module, folder: Path) -> None:
    """Gives the model the weights of ``folder``/model.safetensors; BowerbirdError if they do not fit.

    Pretrained models often have rows for more tokens than their tokenizer knows; these are left out.
    """
    file = folder / "model.safetensors"
    if not file.is_file():
        raise BowerbirdError(f"model.start = {folder} has no model.safetensors; name a trained run or imported model.")
    found, own = safetensors.torch.load_file(file), model.state_dict()
    for name in PER_TOKEN & found.keys() & own.keys():
        if found[name].shape[1:] == own[name].shape[1:]:
            found[name] = found[name][: len(own[name])]
    for name in sorted(found.keys() | own.keys()):
        shapes = [tuple(tensors[name].shape) if name in tensors else None for tensors in (found, own)]
        if shapes[0] != shapes[1]:
            there, here = (f"of shape {shape}" if shape else "missing" for shape in shapes)
            raise BowerbirdError(
                f"model.start = {folder} does not fit: '{name}' is {there} there and {here} here; use its [model.net] "
                "and its tokenizer (data.text.tokenizer)."
            )
    model.load_state_dict(found)
