"""diffusers: a folder for ``DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)``.

No class of diffusers computes what our networks do: our U-Net merges skips by 1x1 convolutions around average pooling,
our DiT embeds time by other frequencies and adds what is given before its last linear layer.  So the network comes as
its own code (``export.graph``) with its weights in safetensors, and the pipeline as a file of ours.
"""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.export.graph import network_file, quiet, source
from bowerbird.export.onnx import SCRIPTS, asked, sampler_settings
from bowerbird.export.target import Parity, Target, Trained, compared, examples, package, require_pieces
from bowerbird.registry import exports

HEAD = '''
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import device, inf, nn


class Network(ModelMixin, ConfigMixin):
    """Weights by their names in the model that was trained; ``shapes`` says which there are."""

    @register_to_config
    def __init__(self, shapes):
        super().__init__()
'''
WEIGHTS = "diffusion_pytorch_model.safetensors"


@exports.register("diffusers")
class Diffusers(Target):
    """A pipeline, its network's code and its network's weights."""

    runtime = "diffusers"

    def require(self, trained: Trained) -> None:
        require_pieces(trained)
        if not trained.draws_whole_pictures:
            raise BowerbirdError(
                f"{trained.path} has no form in diffusers: only gan, vae, diffusion, flow and translation models of "
                "pictures have; export it to onnx instead."
            )

    def write(self, trained: Trained, folder: Path) -> None:
        version, settings = package("diffusers", "hub").__version__, sampler_settings(trained)
        name = settings["procedure"]["piece"]
        code, weights = source(trained.parts[name], name)
        index = {
            "_class_name": ["pipeline", "BowerbirdPipeline"],
            "_diffusers_version": version,
            "network": ["network", "Network"],
            **{key: settings[key] for key in ("procedure", "target", "given")},
        }
        shapes = {key: list(value.shape) for key, value in weights.items()}
        config = {"_class_name": "Network", "_diffusers_version": version, "shapes": shapes}
        (folder / "network").mkdir()
        _write(folder / "model_index.json", json.dumps(index, indent=1))
        _write(folder / "pipeline.py", (SCRIPTS / "diffusers_pipeline.py").read_text(encoding="utf-8"))
        _write(folder / "network" / "config.json", json.dumps(config, indent=1))
        _write(folder / "network" / "network.py", network_file(HEAD, code))
        safetensors.torch.save_file(weights, folder / "network" / WEIGHTS, {"format": "pt"})

    def compare(self, trained: Trained, folder: Path) -> list[Parity]:
        diffusers = package("diffusers", "hub")
        diffusers.utils.logging.disable_progress_bar()
        with quiet():
            pipe = diffusers.DiffusionPipeline.from_pretrained(
                str(folder), trust_remote_code=True, low_cpu_mem_usage=False
            )
        pipe.set_progress_bar_config(disable=True)
        name: Any = trained.portable.procedure()["piece"]
        piece, fields = trained.parts[name], dict(trained.spec.given)

        def ours(rows: Tensor, *given: Tensor) -> Tensor:
            return trained.model.sample(len(rows), dict(zip(fields, given, strict=True)), None, Draws(len(rows)))

        def theirs(rows: Tensor, *given: Tensor) -> Tensor:
            draws, n = Draws(len(rows)), len(rows)
            uniform = trained.portable.procedure().get("latent") == "uniform"
            noise = (lambda *shape: 2 * draws.rand(n, *shape) - 1) if uniform else lambda *shape: draws.randn(n, *shape)
            given_rows = dict(zip(fields, given, strict=True))
            return pipe(n, given=given_rows, noise=noise, output_type="pt").images

        return [
            compared(name, piece.module, pipe.network, lambda n: examples(piece.inputs, n)),
            compared("pipeline", ours, theirs, lambda n: (torch.empty(n), *asked(fields, n))),
        ]

    def usage(self, trained: Trained) -> str:
        given = ', given={"label": "3"}' if "label" in trained.spec.given else ""
        return (
            "```python\nfrom diffusers import DiffusionPipeline\n\n"
            'pipe = DiffusionPipeline.from_pretrained(".", trust_remote_code=True)\n'
            f"images = pipe(batch_size=4{given}).images\n```\n\n"
            "`trust_remote_code` runs the two Python files of this folder; read them first, they are short."
        )


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
