"""Adapter folders of the library PEFT: adapter_config.json and adapter_model.safetensors, beside a model of its own.

    W + scale B A,        scale = alpha / rank, or alpha / √rank (rank-stabilised: Kalajdzievski 2023, arXiv:2312.03732)

added to the weights that the adapter was trained for.  Everything else that PEFT can do is refused by its name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bowerbird.errors import BowerbirdError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
UNKNOWN = ("use_dora", "use_qalora", "modules_to_save", "layer_replication", "trainable_token_indices", "lora_bias")
"""Settings that change what an adapter computes and are not understood here."""

Table = Mapping[str, Any]


def base(folder: Path, config: Table) -> Path:
    """The folder of the model that the adapter belongs to: the path in its config, its own, or one beside it."""
    name = str(config.get("base_model_name_or_path") or "")
    places = [Path(name), folder / name, folder, folder.parent / Path(name).name]
    for place in places:
        if (place / "config.json").is_file():
            return place
    raise BowerbirdError(
        f"{folder} is an adapter of the model '{name}', which is not here; put that model's folder at "
        f"{places[-1]} and import the adapter again."
    )


def merged(
    tensors: Mapping[str, Tensor], adapter: Mapping[str, Tensor], config: Table, where: str
) -> dict[str, Tensor]:
    """The model's tensors with the adapter's corrections; BowerbirdError names what is not understood."""
    _check(config, where)
    total = dict(tensors)
    left = dict(adapter)
    for name in sorted(adapter):
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removesuffix(".lora_A.weight")
        a, b = left.pop(name), left.pop(f"{module}.lora_B.weight", None)
        module = module.removeprefix(PREFIX)
        weight = total.get(f"{module}.weight")
        if b is None or weight is None:
            raise BowerbirdError(f"{where} has a correction for '{module}', which is incomplete or not in its model.")
        delta = _scale(module, config) * (b.float() @ a.float())
        delta = delta.T if config.get("fan_in_fan_out") else delta
        if delta.shape != weight.shape:
            raise BowerbirdError(
                f"{where}: the correction of '{module}' has the shape {tuple(delta.shape)}, its weights "
                f"{tuple(weight.shape)}; the adapter belongs to another model."
            )
        total[f"{module}.weight"] = weight.float() + delta
    if left:
        raise BowerbirdError(
            f"{where} has a tensor '{min(left)}', which is not a low-rank correction of a linear layer."
        )
    return total


def _check(config: Table, where: str) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise BowerbirdError(f"{where} is an adapter of the type {kind}; only LORA can be imported.")
    odd = [name for name in UNKNOWN if config.get(name)] + ["bias"] * (config.get("bias", "none") != "none")
    if odd:
        raise BowerbirdError(
            f"{where} cannot be imported: its {CONFIG} sets {', '.join(odd)}. Merge the adapter with PEFT "
            "(merge_and_unload) and import the result."
        )


def _scale(module: str, config: Table) -> float:
    """alpha / rank of one layer; patterns say which layers have others than the rest."""
    rank = _of_module(module, config.get("rank_pattern") or {}, config["r"])
    alpha = _of_module(module, config.get("alpha_pattern") or {}, config["lora_alpha"])
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _of_module(module: str, patterns: Mapping[str, float], usual: float) -> float:
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), usual)
