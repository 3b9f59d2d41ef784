"""How often watermarks are found after what happens to pictures and texts, and how often where there are none.

    python benchmarks/bench_watermark.py                          pixels: emoji; photographs where shared data are
    python benchmarks/bench_watermark.py --text RUN --noise RUN   words of a language model, noise of a flow

Detection is the share of marked samples above the threshold of one false alarm in a million (by theory, see
bowerbird.provenance.spectrum, samplers.greenlist and samplers.noisemark); false alarms are counted on unmarked ones.
"""

import argparse
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance

import bowerbird
from bowerbird.data import builtin
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.generating import generate
from bowerbird.models.base import Batch
from bowerbird.provenance import spectrum
from bowerbird.samplers import greenlist, noisemark

KEY = greenlist.PUBLIC_KEY
SHARED = Path(os.environ.get("BOWERBIRD_SHARED", Path(__file__).parents[2] / "shared" / "data"))


def jpeg(quality):
    def attack(image):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(io.BytesIO(buffer.getvalue()))

    return attack


def crop(image):
    """Nine tenths of each side, from the middle."""
    w, h = image.size
    left, top = round(w * 0.05), round(h * 0.05)
    return image.crop((left, top, left + round(w * 0.9), top + round(h * 0.9)))


def half(image):
    return image.resize((image.width // 2, image.height // 2), Image.BICUBIC).resize(image.size, Image.BICUBIC)


def noisy(image):
    pixels = np.asarray(image, np.float64)
    return Image.fromarray(
        np.clip(pixels + np.random.default_rng(0).normal(0, 5, pixels.shape), 0, 255).astype("uint8")
    )


ATTACKS = {
    "none": lambda image: image,
    "JPEG 90": jpeg(90),
    "JPEG 75": jpeg(75),
    "JPEG 50": jpeg(50),
    "crop 10 %": crop,
    "JPEG 75, crop": lambda image: crop(jpeg(75)(image)),
    "crop, enlarged": lambda image: crop(image).resize(image.size, Image.BICUBIC),
    "half and back": half,
    "noise 5": noisy,
    "brightness 1.2": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "flip": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def emoji(side):
    """All 6,280, in random order, as they are or smaller."""
    pixels = builtin.load("emoji")["images"]
    for i in np.random.default_rng(0).permutation(len(pixels)):
        image = Image.fromarray(pixels[i])
        yield image if side == image.width else image.resize((side, side), Image.LANCZOS)


def photographs(side):
    """Pieces of façades; none without the shared data."""
    file, rng = SHARED / "images" / "facades.zip", np.random.default_rng(0)
    if not file.is_file():
        return
    with zipfile.ZipFile(file) as archive:
        images = [Image.open(archive.open(name)).convert("RGB") for name in archive.namelist() if name.endswith(".jpg")]
    for _ in range(16):
        for image in images:
            if min(image.size) >= side:
                x, y = (int(rng.integers(0, most - side + 1)) for most in image.size)
                yield image.crop((x, y, x + side, y + side))


def z_of(image):
    return spectrum.detect(np.asarray(image.convert("RGB"))).z


def pixels(name, source, side, n_marked, n_unmarked):
    images = [image for _, image in zip(range(max(n_marked, n_unmarked)), source(side), strict=False)]
    if not images:
        return
    marked = [Image.fromarray(spectrum.marked(np.asarray(image))) for image in images[:n_marked]]
    errors = [np.square(np.asarray(a, float) - np.asarray(b)).mean() for a, b in zip(images, marked, strict=False)]
    tau = spectrum.threshold()
    rates = {attack: np.mean([z_of(do(image)) > tau for image in marked]) for attack, do in ATTACKS.items()}
    clean = np.array([z_of(image) for image in images[:n_unmarked]])
    psnr = 10 * np.log10(255**2 / np.array(errors))
    cells = " ".join(f"{rate:14.1%}" for rate in rates.values())
    alarms = f"{(clean > tau).sum()} of {len(clean):,} (z at most {clean.max():.1f})"
    print(f"{name:12} {side:4} {psnr.min():5.1f} {cells}  {alarms}", flush=True)


def text(run, n):
    model = bowerbird.load(run, "cpu")
    tokenizer = Tokenizer.from_spec(model.spec)
    print(f"\nwords of {run}: detection by length in tokens, nats per token of the unmarked model")
    for delta in (0.0, 1.0, 2.0, 3.0):
        samples = generate(model, n, seed=1, options={"n_tokens": 400, "watermark": delta})
        counted = {
            k: [greenlist.score(torch.tensor(tokenizer.encode(one[:k])), KEY) for one in samples] for k in (250, 400)
        }
        found = {k: np.mean([score.found for score in scores]) for k, scores in counted.items()}
        x = samples.x[:, : model.spec.target.context]
        nll = -model.log_prob(Batch(x)).double() / (x.shape[1] - 1)
        cells = " ".join(f"{k}: {rate:6.1%}" for k, rate in found.items())
        print(f"delta {delta}  {cells}  nll {nll.mean():.3f} ± {nll.std() / n**0.5:.3f}", flush=True)
    import lzma

    whole = lzma.decompress(builtin.path("shakespeare").read_bytes()).decode()
    pieces = [whole[i : i + 400] for i in range(0, len(whole) - 400, 400)]
    scores = [greenlist.score(torch.tensor(tokenizer.encode(piece)), KEY) for piece in pieces]
    z = np.array([score.z for score in scores])
    print(
        f"false alarms in {len(pieces):,} pieces of Shakespeare: {sum(score.found for score in scores)}; "
        f"z {z.mean():+.2f} ± {z.std():.2f}, at most {z.max():.1f}; "
        f"p < 0.01 in {np.mean([score.p < 0.01 for score in scores]):.2%}"
    )


def noise(run, n, n_unmarked):
    model = bowerbird.load(run, "cpu")
    tau = noisemark.threshold()

    def z(images):
        stacked = torch.from_numpy(np.stack([np.asarray(image.convert("L"), np.float32) for image in images]))[:, None]
        return torch.cat([noisemark.z(model.noise_of(part), KEY) for part in (stacked / 127.5 - 1).split(256)])

    print(f"\nnoise of {run}: detection")
    attacks = {name: ATTACKS[name] for name in ("none", "JPEG 90", "JPEG 75", "JPEG 50", "noise 5", "half and back")}
    for strength in (0.0, 9.0, 12.0, 15.0):
        samples = generate(model, n, seed=1, options={"watermark": strength})
        images = [Image.fromarray(one[..., 0]) for one in samples]
        cells = " ".join(
            f"{name} {(z([do(image) for image in images]) > tau).double().mean():6.1%}" for name, do in attacks.items()
        )
        print(f"strength {strength:4}  {cells}", flush=True)
    real = [Image.fromarray(one[..., 0]) for one in builtin.load("digits")["images"][:n_unmarked]]
    seen = z(real)
    print(
        f"false alarms in {n_unmarked:,} real digits: {int((seen > tau).sum())}; "
        f"z {seen.mean():+.2f} ± {seen.std():.2f}, at most {seen.max():.1f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--unmarked", type=int, default=6280)
    parser.add_argument("--text")
    parser.add_argument("--noise")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.text:
        text(asked.text, 64)
    if asked.noise:
        noise(asked.noise, 100, 2000)
    if not (asked.text or asked.noise):
        print(f"{'pictures':12} side  PSNR {' '.join(f'{name:>14}' for name in ATTACKS)}  false alarms")
        for side in (28, 32, 48, 64):
            pixels("emoji", emoji, side, asked.n, asked.unmarked)
        for side in (64, 128, 256):
            pixels("photographs", photographs, side, asked.n // 2, asked.unmarked // (1 if side == 64 else 6))
