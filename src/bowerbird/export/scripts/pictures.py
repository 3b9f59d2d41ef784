"""Makes pictures with the ONNX graphs beside this file.  Needs numpy, onnxruntime and pillow, and no torch.

    python sample.py --n 16 --seed 0 --label 3 --out samples
    python sample.py --source cat.png dog.png              (models that make pictures from pictures)
    python sample.py --restore cat.png --quality 0.8       (compressors with loss: encoded, and decoded)

sampler.json says what the model makes, from what, and how; ``Sampler`` reads it.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image, PngImagePlugin

Given = dict[str, np.ndarray]
FRAME_MS = 125
"""How long a frame of a clip is shown."""


class Rows:
    """Random numbers: sample i of a seed has its own, however many samples are made."""

    def __init__(self, seed: int, n: int):
        self.rows = [np.random.default_rng([seed, i]) for i in range(n)]

    def normal(self, *shape: int) -> np.ndarray:
        return np.stack([row.standard_normal(shape, np.float32) for row in self.rows])

    def uniform(self, *shape: int) -> np.ndarray:
        return np.stack([row.random(shape, np.float32) for row in self.rows])

    def at(self, place: int) -> np.ndarray:
        """One number for the value at this place of each row."""
        return self.uniform()


def loaded(folder: Path, piece: str) -> ort.InferenceSession:
    """The graph of one piece."""
    return ort.InferenceSession(str(folder / f"{piece}.onnx"), providers=["CPUExecutionProvider"])


class Sampler:
    """(n, given, rows) → n pictures, float32 (n, c, h, w) in [-1, 1]."""

    def __init__(self, folder: Path):
        self.settings = json.loads((folder / "sampler.json").read_text(encoding="utf-8"))
        self.procedure = self.settings["procedure"]
        self.drawn = self.procedure.get("target", self.settings["target"])
        self.folder, self.session = folder, loaded(folder, self.procedure["piece"])
        self.names = [one.name for one in self.session.get_inputs()]

    def __call__(self, n: int, given: Given, rows: Any, guidance: float | None = None) -> np.ndarray:
        before = self.procedure.get("before", {}).items()
        seen = given | {name: self.by(piece, {"x": given[name]}) for name, piece in before}
        make = self.rollout if "rollout" in self.procedure else self.one
        x = make(n, seen, rows, guidance)
        if "after" in self.procedure:
            x = self.by(self.procedure["after"], given | {"z": x})
        bounds = self.settings["target"]["bounds"]
        return x.clip(*bounds) if bounds else x

    def one(self, n: int, given: Given, rows: Any, guidance: float | None) -> np.ndarray:
        """A picture, or a code of one."""
        if self.procedure["kind"] == "denoise":
            return self.denoise(n, given, rows, self.procedure["guidance"] if guidance is None else guidance)
        x: np.ndarray = getattr(self, self.procedure["kind"])(n, given, rows)
        return x

    def rollout(self, n: int, given: Given, rows: Any, guidance: float | None) -> np.ndarray:
        """A clip (n, c, f, h, w) frame by frame, each from the first, those just before it, and its place."""
        past, begins = self.procedure["rollout"]["past"], self.procedure["rollout"]["begins"]
        channels, n_frames, height, width = self.settings["target"]["shape"]
        frames = np.zeros((n, past + n_frames, channels, height, width), np.float32)
        if begins:
            frames[:, past] = given["first"]
        for k in range(begins, n_frames):
            before = frames[:, k : k + past].reshape(n, -1, height, width)
            place = np.full(n, k / (n_frames - 1), np.float32)
            seen = {"before": before, "first": frames[:, past], "place": place}
            frames[:, past + k] = self.one(n, given | seen, rows, guidance).clip(*self.drawn["bounds"])
        return frames[:, past:].swapaxes(1, 2)

    def decode(self, n: int, given: Given, rows: Any) -> np.ndarray:
        """Generative adversarial networks and variational autoencoders: x = G(z)."""
        shape = (self.procedure["n_latent"],)
        z = rows.normal(*shape) if self.procedure["latent"] == "gaussian" else 2 * rows.uniform(*shape) - 1
        return self.run({"z": z} | given)

    def translate(self, n: int, given: Given, rows: Any) -> np.ndarray:
        """Translation of pictures: x = G(source); nothing is drawn at random."""
        return self.run(given)

    def pixels(self, n: int, given: Given, rows: Any) -> np.ndarray:
        """Autoregressive models: a picture value by value, row by row, of a pixel all channels in turn."""
        channels, height, width = self.settings["target"]["shape"]
        values = np.stack(list(self.stream(n, given, rows, channels * height * width)), 1)
        x = values.astype(np.float32) * (2 / (self.procedure["levels"] - 1)) - 1
        return x.reshape(n, height, width, channels).transpose(0, 3, 1, 2)

    def codes(self, n: int, given: Given, rows: Any) -> np.ndarray:
        """Discrete autoencoders: codes from left to right, line by line, their vectors, the picture of those."""
        codes = np.stack(list(self.stream(n, given, rows, self.procedure["places"])), 1)
        return self.by("decoder", {"z": self.by("codebook", {"codes": codes}).reshape(n, -1)})

    def places(self, n: int, given: Given, rows: Any) -> np.ndarray:
        """Compressors with loss: the codes of a picture place by place, each as its neighbours let expect, and it."""
        channels, height, width = self.procedure["grid"]
        context, quality = loaded(self.folder, "context"), np.full(n, self.procedure["quality"], np.float32)
        codes = np.zeros((n, channels, height, width), np.float32)
        u = rows.uniform(channels * height * width).reshape(n, height, width, channels, 1)
        for row, column in np.ndindex(height, width):
            expected = context.run(None, {"codes": codes, "quality": quality})[0][:, :, row, column, None]
            cumulative = self.mass(expected[:, :channels], expected[:, channels:]).cumsum(-1, dtype=np.float64)
            chosen = (cumulative < u[:, row, column] * cumulative[..., -1:]).sum(-1)
            codes[:, :, row, column] = chosen.clip(max=2 * self.procedure["largest"]) - self.procedure["largest"]
        return self.run({"codes": codes, "quality": quality})

    def mass(self, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """The logistic's mass within a half of every whole number that a code can be."""
        every = np.arange(-self.procedure["largest"], self.procedure["largest"] + 1, dtype=np.float32)
        with np.errstate(over="ignore"):  # 1 / (1 + inf) is the 0 that it should be
            above = 1 / (1 + np.exp((mean - every - np.float32(0.5)) / scale))
            below = 1 / (1 + np.exp((mean - every + np.float32(0.5)) / scale))
        return (above - below).clip(min=1e-9)

    def restored(self, x: np.ndarray, quality: float) -> tuple[np.ndarray, np.ndarray]:
        """What a compressor with loss gives back of pictures, and how many bits each takes."""
        asked = np.full(len(x), quality, np.float32)
        codes = np.rint(self.by("encoder", {"x": x, "quality": asked}))
        mean, scale = np.split(self.by("context", {"codes": codes, "quality": asked})[..., None], 2, 1)
        at = codes[..., None].astype(np.int64) + self.procedure["largest"]
        bits = -np.log2(np.take_along_axis(self.mass(mean, scale), at, -1)).sum((1, 2, 3, 4))
        return self.run({"codes": codes, "quality": asked}).clip(-1, 1), bits

    def stream(self, n: int, given: Given, rows: Any, most: int) -> Iterator[np.ndarray]:
        """The next value of every picture; one evaluation of all values so far for each."""
        counts, s = self.procedure["counts"], self.procedure["sampling"]
        offsets = self.procedure["levels"] + np.cumsum([0, *counts[:-1]])
        firsts = [given[name] for name in self.settings["given"]] or [np.zeros(n, np.int64)]
        past = np.stack([first + offset for first, offset in zip(firsts, offsets, strict=True)], 1).astype(np.int64)
        for _ in range(most):
            logits = self.session.run(None, {"tokens": past})[0][:, -1] / max(s["temperature"], 1e-9)
            probability = np.exp(logits - logits.max(1, keepdims=True))
            cumulative = probability.cumsum(1)
            value = (cumulative <= rows.at(past.shape[1])[:, None] * cumulative[:, -1:]).sum(1)
            yield value
            past = np.concatenate([past, value[:, None]], 1)

    def denoise(self, n: int, given: Given, rows: Any, guidance: float) -> np.ndarray:
        """Diffusion and flows.  A sampler is a table; each row of it is one evaluation of the network:

        x0 = a x + b y(c_in x, t),     x <- x_weight x + d x0 + previous x0_previous + noise z
        """
        shape = self.drawn["shape"]
        bounds = self.drawn["bounds"] if self.procedure["clip"] else None
        x = np.float32(self.procedure["first_sigma"]) * rows.normal(*shape)
        previous = x
        for step in self.procedure["steps"]:
            y, mix = self.predict(step["c_in"] * x, step["t"], given, guidance)
            x0 = step["a"] * x + step["b"] * y
            x0 = x0.clip(*bounds) if bounds else x0
            x = step["x"] * x + step["d"] * x0 + step["previous"] * previous
            if step["noise"]:
                x = x + step["noise"] ** (1 - mix) * step["noise_max"] ** mix * rows.normal(*shape)
            x, previous = x.astype(np.float32), x0
        return x

    def predict(self, x: np.ndarray, t: float, given: Given, guidance: float) -> tuple[np.ndarray, Any]:
        """What the network says, and where the variance lies between its bounds.

        Guidance (classifier-free) is y_none + guidance (y_given - y_none); 1 is the network's own answer.
        """
        times = np.full(len(x), t, np.float32)
        y = self.run({"x_t": x.astype(np.float32), "t": times} | given)
        variance, channels = self.procedure.get("variance"), self.drawn["shape"][0]
        y, v = y[:, :channels], y[:, channels:]
        if guidance != 1:
            nothing = {name: self.nothing(name, value) for name, value in given.items()}
            none = self.run({"x_t": x.astype(np.float32), "t": times} | nothing)[:, :channels]
            y = none + guidance * (y - none)
        if self.procedure.get("logits"):
            y = np.tanh(y / 2)
        return y, 1 / (1 + np.exp(-v)) if variance == "learned" else float(variance == "fixed-large")

    def by(self, piece: str, tensors: Given) -> np.ndarray:
        """What another piece than the sampled one makes: one half of an autoencoder."""
        session = loaded(self.folder, piece)
        return session.run(None, {one.name: tensors[one.name] for one in session.get_inputs()})[0]

    def run(self, tensors: Given) -> np.ndarray:
        return self.session.run(None, {name: tensors[name] for name in self.names})[0]

    def nothing(self, name: str, like: np.ndarray) -> np.ndarray:
        """What stands for "not given"."""
        field = self.settings["given"].get(name, {"type": "Tensors"})
        values = {"Classes": len(field.get("names", ())), "Tokens": field.get("pad", 0), "Tensors": 0}
        return np.full_like(like, values[field["type"]])

    def given(self, asked: dict[str, Any], n: int, rows: Any) -> Given:
        """What is asked for as arrays of n rows; a class that is not, as often as in the training data."""
        return {
            name: self.read(name, field, asked.get(name), n, rows) for name, field in self.settings["given"].items()
        }

    def read(self, name: str, field: dict[str, Any], value: Any, n: int, rows: Any) -> np.ndarray:
        if field["type"] == "Classes":
            if value is None:
                cumulative = np.cumsum(field["counts"] or [1] * len(field["names"]))
                return np.searchsorted(cumulative, rows.uniform() * cumulative[-1], side="right").astype(np.int64)
            if value not in field["names"]:
                raise SystemExit(f"There is no {name} '{value}'; known: {', '.join(field['names'])}.")
            return np.full(n, field["names"].index(value), np.int64)
        if field["type"] == "Tokens":
            return np.array([tokens(value or "", field)] * n, np.int64)
        if not value:
            raise SystemExit(f"This model makes pictures from pictures; give one with --{name} FILE.")
        return np.stack([picture(file, field["shape"]) for file in value])


def tokens(text: str, field: dict[str, Any]) -> list[int]:
    """A caption as tokens, which needs the package tokenizers unless the caption is empty."""
    if not text:
        return [field["pad"]]
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(Path(__file__).parent / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    return [*ids, field["eos"]][: field["context"]]


def picture(file: str, shape: list[int]) -> np.ndarray:
    """A file as float32 (c, h, w) in [-1, 1]; what is transparent becomes white."""
    channels, height, width = shape
    try:
        image = Image.open(file).convert("RGBA")
    except OSError as error:  # that of Pillow says which file it is
        raise SystemExit(f"Cannot read a picture: {error}") from None
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert(
        "RGB" if channels == 3 else "L"
    )
    pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS), np.float32) / 127.5 - 1
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


GENERATED = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType='
    '"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>'
)
"""Says in every file's metadata that a model made the picture."""


def save(x: np.ndarray, folder: Path, names: list[str]) -> None:
    """A PNG file for each picture, an animated one for each clip."""
    folder.mkdir(parents=True, exist_ok=True)
    label = PngImagePlugin.PngInfo()
    label.add_itxt("XML:com.adobe.xmp", GENERATED)
    pixels = np.moveaxis(np.rint((x + 1) * 127.5).clip(0, 255).astype(np.uint8), 1, -1)
    for name, one in zip(names, pixels, strict=True):
        shown = one[..., 0] if one.shape[-1] == 1 else one
        first, *others = [Image.fromarray(frame) for frame in (shown if x.ndim == 5 else shown[None])]
        moving: dict[str, Any] = (
            {"save_all": True, "append_images": others, "duration": FRAME_MS, "loop": 0} if others else {}
        )
        first.save(folder / f"{name}.png", pnginfo=label, **moving)


def main() -> None:
    sampler = Sampler(Path(__file__).parent)
    parser = argparse.ArgumentParser(description="Makes pictures with the ONNX graphs beside this file.")
    parser.add_argument("--n", type=int, default=16, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same pictures")
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder to write to")
    if sampler.procedure["kind"] == "denoise":
        parser.add_argument("--guidance", type=float, help="above 1: exaggerate what is given")
    if sampler.procedure["kind"] == "places":
        parser.add_argument("--restore", nargs="+", help="pictures to encode and decode, in place of new ones")
        parser.add_argument(
            "--quality", type=float, help="of --restore; 0: the smallest codes, 1: the nearest pictures"
        )
    for name, field in sampler.settings["given"].items():
        parser.add_argument(f"--{name}", nargs="+" if field["type"] == "Tensors" else None)
    asked = vars(parser.parse_args())
    quality = asked.get("quality")
    if quality is not None and not (asked["restore"] and 0 <= quality <= 1):
        raise SystemExit("--quality goes with --restore, and is a number from 0 to 1.")
    if asked.get("restore"):
        pictures = np.stack([picture(file, sampler.settings["target"]["shape"]) for file in asked["restore"]])
        x, bits = sampler.restored(pictures, sampler.procedure["quality"] if quality is None else quality)
        save(x, asked["out"], [f"{i:05d}" for i in range(len(x))])
        for file, one in zip(asked["restore"], bits, strict=True):
            print(f"{file}: {one / pictures[0][0].size:.3f} bits per pixel")
        return
    files = next((asked[name] for name, field in sampler.settings["given"].items() if field["type"] == "Tensors"), None)
    n = len(files) if files else asked["n"]
    if n < 1:
        raise SystemExit("--n must be at least 1.")
    rows = Rows(asked["seed"], n)
    guided = {"guidance": asked["guidance"]} if asked.get("guidance") is not None else {}
    save(sampler(n, sampler.given(asked, n, rows), rows, **guided), asked["out"], [f"{i:05d}" for i in range(n)])
    print(asked["out"])


if __name__ == "__main__":
    main()
