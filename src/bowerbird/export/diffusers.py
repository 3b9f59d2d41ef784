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
from bowerbird.export.target import Parity, Target, Trained, compared, compared_piece, package, require_pieces
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
                f"{trained.path} has no form in diffusers: only models that draw whole "
                "pictures have; export it to onnx instead."
            )

    def write(self, trained: Trained, folder: Path) -> None:
        version, settings = package("diffusers", "hub").__version__, sampler_settings(trained)
        networks = networks_of(settings["procedure"])
        index = {
            "_class_name": ["pipeline", "BowerbirdPipeline"],
            "_diffusers_version": version,
            **{network: [network, "Network"] for network in networks},
            **{key: settings[key] for key in ("procedure", "target", "given")},
            "codec": trained.spec.codec,
        }
        _write(folder / "model_index.json", json.dumps(index, indent=1))
        _write(folder / "pipeline.py", (SCRIPTS / "diffusers_pipeline.py").read_text(encoding="utf-8"))
        for network, name in networks.items():
            _write_network(folder / network, network, *source(trained.parts[name], name), version)

    def compare(self, trained: Trained, folder: Path) -> list[Parity]:
        diffusers = package("diffusers", "hub")
        diffusers.utils.logging.disable_progress_bar()
        with quiet():
            pipe = diffusers.DiffusionPipeline.from_pretrained(
                str(folder), trust_remote_code=True, low_cpu_mem_usage=False
            )
        pipe.set_progress_bar_config(disable=True)
        fields = dict(trained.spec.given)

        def ours(rows: Tensor, *given: Tensor) -> Tensor:
            return trained.model.sample(len(rows), dict(zip(fields, given, strict=True)), None, Draws(len(rows)))

        def theirs(rows: Tensor, *given: Tensor) -> Tensor:
            draws, n = Draws(len(rows)), len(rows)
            uniform = trained.portable.procedure().get("latent") == "uniform"
            noise = (lambda *shape: 2 * draws.rand(n, *shape) - 1) if uniform else lambda *shape: draws.randn(n, *shape)
            given_rows = dict(zip(fields, given, strict=True))
            return pipe(n, given=given_rows, noise=noise, output_type="pt").images

        networks = networks_of(trained.portable.procedure())
        return [
            *(compared_piece(trained, name, getattr(pipe, network)) for network, name in networks.items()),
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


def networks_of(procedure: dict[str, Any]) -> dict[str, str]:
    """The pieces that a pipeline is made of, by their names in it."""
    after = {"pictures": procedure["after"]} if "after" in procedure else {}
    before = {"codes": "codes"} if procedure.get("before") else {}
    return {"network": procedure["piece"], **after, **before}


def _write_network(folder: Path, name: str, code: str, weights: dict[str, Tensor], version: str) -> None:
    """diffusers looks for the code of a component in a file of the component's name."""
    folder.mkdir()
    shapes = {key: list(value.shape) for key, value in weights.items()}
    config = {"_class_name": "Network", "_diffusers_version": version, "shapes": shapes}
    _write(folder / "config.json", json.dumps(config, indent=1))
    _write(folder / f"{name}.py", network_file(HEAD, code))
    safetensors.torch.save_file(weights, folder / WEIGHTS, {"format": "pt"})


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
