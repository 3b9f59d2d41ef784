"""Enlarges unseen pictures four times and compares the results with the truth: python benchmarks/enlarging.py RUN.

    npm pack @upscalerjs/esrgan-slim@1.0.0
    python benchmarks/enlarging.py RUN --peer upscalerjs-esrgan-slim-1.0.0.tgz [--sheet large.png]

RUN is of the recipe emoji-large: its test pictures show things that training saw in no style.  Beside it stand blocks,
bicubic and Lanczos enlargement, and the peer, a residual dense network that its authors trained on photographs (DIV2K);
its weights are a TensorFlow.js layers model, of which the few layers that it has are computed here.

    PSNR         of the mean squared error of all pixels of a picture, the mean over pictures, in dB
    SSIM         ``bowerbird.metrics.pixelwise.ssim``
    perceptual   mean over layers and places of ‖f(x)/‖f(x)‖ - f(y)/‖f(y)‖‖², f the features of EfficientNet-Lite0
                 (LPIPS with all weights 1, equation 1 of Zhang et al. 2018, arXiv:1801.03924, and another network)
"""

import argparse
import json
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from bowerbird import api
from bowerbird.data.fetch import needed
from bowerbird.eightbit import to_float, to_uint8
from bowerbird.media import open_data
from bowerbird.media.image import pixels
from bowerbird.media.image.pictures import sheet
from bowerbird.metrics.averages import mean
from bowerbird.metrics.efficientnet import EfficientNetLite0
from bowerbird.metrics.pixelwise import ssim
from bowerbird.training.rundir import RunDir

LAYERS = (0, 1, 3, 5, 8)
AT_ONCE = 64

# ------------------------------------------------------------------------------------------------------ the peer


class LayersModel:
    """A TensorFlow.js layers model of convolutions, sums, concatenations and repetition."""

    def __init__(self, package: Path, folder: str):
        with tarfile.open(package) as tar:
            read = {
                m.name.rsplit("/", 1)[-1]: tar.extractfile(m) for m in tar if m.name.startswith(f"package/{folder}/")
            }
            files = {name: file.read() for name, file in read.items() if file is not None}
        model = json.loads(files["model.json"])
        self.layers: list[dict[str, Any]] = model["modelTopology"]["model_config"]["config"]["layers"]
        self.weights: dict[str, Tensor] = {}
        for group in model["weightsManifest"]:
            numbers = np.frombuffer(b"".join(files[path] for path in group["paths"]), "<f4").copy()
            for one in group["weights"]:
                n = int(np.prod(one["shape"]))
                self.weights[one["name"]], numbers = torch.from_numpy(numbers[:n]).view(one["shape"]), numbers[n:]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """The picture (n, 3, h, w), in the network's own range, as what its last layer makes of it."""
        values: dict[str, Tensor] = {}
        for layer in self.layers:
            inputs = [values[node[0]] for node in (layer["inbound_nodes"] or [[]])[0]]
            x = values[layer["name"]] = self.computed(layer, inputs) if inputs else x
        return x

    def computed(self, layer: dict[str, Any], inputs: list[Tensor]) -> Tensor:
        match layer["class_name"]:
            case "Conv2D":
                kernel, bias = (self.weights[f"{layer['name']}/{part}"] for part in ("kernel", "bias"))
                return F.conv2d(inputs[0], kernel.permute(3, 2, 0, 1), bias, padding="same")
            case "Activation":
                return F.relu(inputs[0])
            case "Concatenate":
                return torch.cat(inputs, 1)
            case "Add":
                return inputs[0] + inputs[1]
            case "UpSampling2D":
                return F.interpolate(inputs[0], scale_factor=layer["config"]["size"], mode="nearest")
        raise NotImplementedError(layer["class_name"])


# ------------------------------------------------------------------------------------------------------ judging


def perceptual(network: EfficientNetLite0, made: Tensor, truth: Tensor) -> Tensor:
    """The distance of each pair of uint8 pictures."""
    parts = zip(made.split(AT_ONCE), truth.split(AT_ONCE), strict=True)
    return torch.cat([_apart(network, a.float() / 255, b.float() / 255) for a, b in parts])


def _apart(network: EfficientNetLite0, x: Tensor, y: Tensor) -> Tensor:
    maps = zip(*(islice(network.maps(one), LAYERS[-1] + 1) for one in (x, y)), strict=True)
    squares = [(F.normalize(a) - F.normalize(b)).square().sum(1).mean((1, 2)) for a, b in maps]
    return torch.stack([squares[layer] for layer in LAYERS]).mean(0)


def decibels(made: Tensor, truth: Tensor) -> Tensor:
    return 10 * torch.log10(255**2 / (made.double() - truth.double()).square().mean((1, 2, 3)))


def enlarged(small: np.ndarray, side: int, how: Image.Resampling) -> Tensor:
    return torch.from_numpy(
        np.stack([np.asarray(Image.fromarray(x).resize((side, side), how)) for x in small])
    ).permute(0, 3, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--sheet", type=Path)
    a = parser.parse_args()
    model, config = api.load(a.run), RunDir.open(Path(a.run)).config().data
    assert config.shrink
    rows = torch.randperm(len(test := open_data(config).test), generator=torch.Generator().manual_seed(0))[: a.n]
    truth, source = test.images[rows], test.given["source"][rows]
    side = truth.shape[-1]
    small = pixels.fit_array(truth.permute(0, 2, 3, 1).numpy(), side // config.shrink, side // config.shrink)
    made = {how.name.lower(): enlarged(small, side, how) for how in list(Image.Resampling) if how.name in
            ("NEAREST", "BICUBIC", "LANCZOS")}  # fmt: skip
    if a.peer:
        network = LayersModel(a.peer, f"models/x{config.shrink}")
        made["peer"] = (
            network(torch.from_numpy(small).permute(0, 3, 1, 2).float()).round().clamp(0, 255).to(torch.uint8)
        )
    given = {"source": to_float(source)}
    made["ours"] = to_uint8(model.sample(len(rows), given))
    judge = EfficientNetLite0.load(needed("efficientnet-lite0"))
    print("| | PSNR (dB) | SSIM | perceptual |\n|---|---|---|---|")
    for name, x in made.items():
        found = (decibels(x, truth), ssim(x, truth), perceptual(judge, x, truth))
        print(f"| {name} | " + " | ".join("{:.4f} ± {:.4f}".format(*mean(one.numpy())) for one in found) + " |")
        if name != "ours":
            better = (decibels(made["ours"], truth) > found[0]).float().mean()
            nearer = (perceptual(judge, made["ours"], truth) < found[2]).float().mean()
            print(f"  ours is better on {better:.1%} by PSNR, on {nearer:.1%} by the perceptual distance")
    if a.sheet:
        shown = [made[name][:24] for name in ("nearest", "bicubic", *(["peer"] if a.peer else []), "ours")]
        sheet(torch.cat([*shown, truth[:24]], 3), 3, scale=1).save(a.sheet)


if __name__ == "__main__":
    main()
