"""A piece of a model as a recorded program, and that program as Python that needs torch alone.

``torch.export`` writes down every operation on tensors that the piece performs; ``source`` turns this record into one
straight-line ``forward`` whose weights have the model's own names, so that a file of safetensors and a page of code are
the whole network, to be run, moved to another device, or trained further, without Bowerbird.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from bowerbird.errors import BowerbirdError
from bowerbird.export.target import EXAMPLE_ROWS, examples
from bowerbird.models.base import Piece
from bowerbird.spec import Field, Tokens


def recorded(piece: Piece, name: str) -> ExportedProgram:
    """The program, with any number of rows and any length of tokens; BowerbirdError if it fixes one."""
    rows = Dim("rows")
    sizes = tuple(_free(each, field, rows) for each, field in piece.inputs.items())
    try:
        # Without gradients, or a function that switches them off becomes a program in the program.
        with quiet(), torch.no_grad():
            return torch.export.export(piece.module, examples(piece.inputs, EXAMPLE_ROWS), dynamic_shapes=(sizes,))
    except Exception as error:
        raise BowerbirdError(f"The {name} cannot be recorded: {str(error).strip().splitlines()[0]}") from error


def _free(name: str, field: Field, rows: Any) -> dict[int, Any]:
    """The dimensions of an input that have no fixed size."""
    if not isinstance(field, Tokens):
        return {0: rows}
    return {0: rows, 1: Dim(f"{name}_length", max=field.context)}


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters warn of their own future and of packages that we do not use."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


CLEANUP = re.compile(r";  [\w = ]+ = None$", re.M)
CHECKS = re.compile(r"^.*(_assert_tensor_metadata|tree_flatten_spec).*\n", re.M)


def source(piece: Piece, name: str) -> tuple[str, dict[str, Tensor]]:
    """``forward`` of the piece as a method, and its weights by name."""
    program = recorded(piece, name)
    module: Any = program.module(check_guards=False)
    code = CHECKS.sub("", CLEANUP.sub("", module.code.strip()))
    for number, each in enumerate(piece.inputs):
        code = re.sub(rf"\btensors_{number}\b", each, code)
    code = re.sub(r"return pytree\.tree_unflatten\(\((\w+),\), self\._out_spec\)", r"return \1", code)
    first = next(iter(piece.inputs))
    code = code.replace("device(type='cpu')", f"{first}.device").replace(", pin_memory = False", "")
    return code, {key: value.contiguous() for key, value in _tensors(module).items()}


def _tensors(module: Any) -> dict[str, Tensor]:
    """Parameters, buffers, and what was a constant in the code; all are weights of the written network."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


PLACING = """
        for name, shape in shapes.items():
            *path, last = name.split(".")
            module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module._modules[part]
            module.register_parameter(last, nn.Parameter(torch.empty(shape)))
"""
"""Makes the modules and parameters that ``forward`` names, from their shapes."""


def network_file(head: str, forward: str) -> str:
    """A Python file with the class Network; ``head`` ends inside its __init__, where ``shapes`` is known."""
    said = '"""The network, operation by operation, as torch.export recorded it; written by Bowerbird."""'
    body = "\n    ".join(forward.splitlines())
    return f"{said}\n\n{head.strip()}{PLACING}\n    {body}\n"
