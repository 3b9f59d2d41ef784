"""ONNX: every piece of a model as a graph that onnxruntime runs anywhere, and a sampler that needs no torch.

The number of rows is free in every graph, and so is the length of tokens.  Pieces are recorded with these dimensions
declared (``export.graph``), so that code which fixes one is an error: left to itself, the exporter writes the example's
size into the graph without a word.
"""

import json
import runpy
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.export.graph import quiet, recorded
from bowerbird.export.target import EXAMPLE_ROWS, Parity, Target, Trained, compared, compared_pieces, examples, package
from bowerbird.models.base import Piece, Streams
from bowerbird.registry import exports
from bowerbird.spec import Classes, Field, Spec, Tensors, Tokens, spec_to_json

OPSET = 18
"""Of every graph: the first with all operations in their present form, which onnxruntime runs since version 1.14."""
SCRIPTS = Path(__file__).parent / "scripts"
SETTINGS = "sampler.json"
SCRIPT = "sample.py"


@exports.register("onnx")
class ONNX(Target):
    """A graph for each piece, sampler.json and sample.py."""

    runtime = f"onnxruntime (opset {OPSET})"

    def write(self, trained: Trained, folder: Path) -> None:
        for name, piece in trained.parts.items():
            write_graph(piece, folder / f"{name}.onnx", name, trained.spec)
        settings = sampler_settings(trained)
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1, ensure_ascii=False), encoding="utf-8")
        (folder / SCRIPT).write_bytes((SCRIPTS / script_of(trained.spec)).read_bytes())
        if trained.spec.codec:
            (folder / "tokenizer.json").write_text(trained.spec.codec, encoding="utf-8")

    def compare(self, trained: Trained, folder: Path) -> list[Parity]:
        graphs = {name: loaded(folder / f"{name}.onnx") for name in trained.parts}
        return [*compared_pieces(trained, graphs), *_compared_sampler(trained, folder)]

    def usage(self, trained: Trained) -> str:
        options = "--n 4 --seed 0" + (" --label 3" if "label" in trained.spec.given else "")
        if script_of(trained.spec) == "sounds.py":
            options = "hello.wav"
        return f"```sh\npip install numpy onnxruntime pillow\npython {SCRIPT} {options} --out samples\n```"


def write_graph(piece: Piece, file: Path, name: str, spec: Spec) -> None:
    """Writes one piece; ``bowerbird.spec`` among its metadata says what the model makes, and from what."""
    onnx, _ = package("onnx"), package("onnxscript")
    recurrent = any(isinstance(module, nn.RNNBase) for module in piece.module.modules())
    try:
        with quiet():
            (_traced if recurrent else _recorded)(piece, file, name)
    except BowerbirdError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise BowerbirdError(f"The {name} cannot be written as ONNX: {reason}") from error
    model = onnx.load(file)
    model.producer_name = "bowerbird"
    onnx.helper.set_model_props(model, {"bowerbird.spec": json.dumps(spec_to_json(spec)), "bowerbird.piece": name})
    onnx.save(model, file)


def _recorded(piece: Piece, file: Path, name: str) -> None:
    names = {"input_names": list(piece.inputs), "output_names": [piece.output]}
    program = recorded(piece, name)
    graph = torch.onnx.export(program, opset_version=OPSET, external_data=False, verbose=False, **names)  # type: ignore[arg-type]
    assert graph is not None
    graph.save(file)


def _traced(piece: Piece, file: Path, name: str) -> None:
    """Recurrent layers, of which ``torch.export`` writes one step after the other, so that the length is fixed."""
    free: dict[str, Any] = {piece.output: {0: "rows"}}
    for each, field in piece.inputs.items():
        free[each] = {0: "rows"} | ({1: f"{each}_length"} if isinstance(field, Tokens) else {})
    torch.onnx.export(
        piece.module, examples(piece.inputs, EXAMPLE_ROWS), file, dynamo=False, opset_version=OPSET,
        input_names=list(piece.inputs), output_names=[piece.output], dynamic_axes=free,
    )  # fmt: skip


def loaded(file: Path) -> Callable[..., Tensor]:
    """The graph as a function of tensors, run by onnxruntime."""
    ort = package("onnxruntime")
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*tensors: Tensor) -> Tensor:
        # An input that does not matter, such as z where a model ignores it, is not in the graph.
        feed = dict(zip(names, (tensor.numpy() for tensor in tensors), strict=True))
        return torch.from_numpy(session.run(None, feed)[0])

    return run


# -------------------------------------------------------------------------------------------------------- the sampler


def script_of(spec: Spec) -> str:
    if isinstance(spec.target, Tensors):
        return "sounds.py" if spec.medium == "speech" and len(spec.target.shape) == 2 else "pictures.py"
    return "tokens.py"


def sampler_settings(trained: Trained) -> dict[str, Any]:
    """What sample.py reads: the procedure, shapes, classes."""
    spec = trained.spec
    given = {name: {"type": type(field).__name__} | asdict(field) for name, field in spec.given.items()}
    target = {"type": type(spec.target).__name__} | asdict(spec.target)
    return {"medium": spec.medium, "target": target, "given": given, "procedure": trained.portable.procedure()}


class SameDraws:
    """Our random numbers for the exported sampler, so that both make the same samples."""

    def __init__(self, n: int):
        self.n, self.draws = n, Draws(n)

    def normal(self, *shape: int) -> np.ndarray:
        return self.draws.randn(self.n, *shape).numpy()

    def uniform(self, *shape: int) -> np.ndarray:
        return self.draws.rand(self.n, *shape).numpy()

    def at(self, place: int) -> np.ndarray:
        return self.draws.uniform(self.n, place).numpy()


TOKENS_COMPARED = 16
"""Of each sequence: every token is an evaluation, and a first wrong one changes all that follow."""


def _compared_sampler(trained: Trained, folder: Path) -> list[Parity]:
    """The sampler of the script beside ours, with the same random numbers and the same things given."""
    sampler = runpy.run_path(str(folder / SCRIPT), run_name="exported")["Sampler"](folder)
    fields = {name: field for name, field in trained.spec.given.items() if name != "prompt"}
    tokens = isinstance(trained.spec.target, Tokens) or trained.portable.procedure()["kind"] == "pixels"

    def ours(*given: Tensor) -> Tensor:
        n, wanted = len(given[0]), dict(zip(fields, given[1:], strict=True))
        if not tokens:
            return trained.model.sample(n, wanted, None, Draws(n))
        if isinstance(trained.model, Streams):
            return torch.stack(list(islice(trained.model.stream(n, wanted, None, Draws(n)), TOKENS_COMPARED)), 1)
        return trained.model.sample(n, wanted, trained.model.Options(beam=1, n_tokens=TOKENS_COMPARED), Draws(n))[:, 1:]

    def theirs(*given: Tensor) -> Tensor:
        n, wanted = len(given[0]), {name: value.numpy() for name, value in zip(fields, given[1:], strict=True)}
        if not tokens:
            return torch.from_numpy(sampler(n, wanted, SameDraws(n)))
        return torch.from_numpy(np.stack(list(sampler.stream(n, wanted, SameDraws(n), TOKENS_COMPARED)), 1))

    return [compared("sampler", ours, theirs, lambda n: (torch.empty(n), *asked(fields, n)))]


def asked(fields: Mapping[str, Field], n: int) -> list[Tensor]:
    """Things that can be given: no row is "not given"."""
    tensors = zip(fields.values(), examples(fields, n), strict=True)
    return [value.clamp(max=len(f.names) - 1) if isinstance(f, Classes) else value for f, value in tensors]
