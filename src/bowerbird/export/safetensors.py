"""safetensors: the weights in one file, whose header says what the model makes, beside the configuration.

The folder is the smallest run folder that there is: every command of Bowerbird that needs no training state takes it.
"""

from pathlib import Path

import torch
from torch.nn.utils import parameters_to_vector

from bowerbird import config
from bowerbird.export.card import public
from bowerbird.export.target import Parity, Target, Trained, compared, compared_pieces
from bowerbird.models.base import Portable
from bowerbird.registry import exports
from bowerbird.training.rundir import RunDir, load_model


@exports.register("safetensors")
class Safetensors(Target):
    """model.safetensors and run.toml."""

    runtime = "Bowerbird itself, from the exported files alone"

    def require(self, trained: Trained) -> None:
        """Every family has weights."""

    def write(self, trained: Trained, folder: Path) -> None:
        source, target = RunDir.open(trained.path), RunDir(folder)
        weights = {name: value.contiguous() for name, value in trained.model.state_dict().items()}
        target.save_model(weights, source.spec_of(source.model_file), source.status().get("step", 0))
        target.write_text(target.run_toml.name, config.dumps(public(trained.run)))

    def compare(self, trained: Trained, folder: Path) -> list[Parity]:
        again = load_model(folder)[0].to(memory_format=torch.contiguous_format)
        if isinstance(again, Portable):
            return compared_pieces(trained, {name: piece.module for name, piece in again.pieces.items()})
        ours, theirs = (parameters_to_vector(model.state_dict().values()) for model in (trained.model, again))
        return [compared("weights", lambda _: ours, lambda _: theirs, lambda n: (torch.empty(n),))]

    def usage(self, trained: Trained) -> str:
        return "```sh\nbowerbird sample .\n```"
