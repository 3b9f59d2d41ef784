"""A pipeline of diffusers for a model that Bowerbird trained.  Needs torch and diffusers, and no Bowerbird.

from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)
images = pipe(batch_size=4, given={"label": "3"}).images
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


class BowerbirdPipeline(DiffusionPipeline):
    """Draws pictures with the network: in one step, or along the table of its sampler."""

    _optional_components = ("pictures", "codes")

    def __init__(
        self, network: Any, pictures: Any = None, codes: Any = None, procedure: Any = None, target: Any = None,
        given: Any = None, codec: Any = "",
    ):  # fmt: skip
        """``network`` draws codes where ``pictures`` makes pictures of them, and ``codes`` codes of given pictures."""
        super().__init__()
        self.register_modules(network=network, pictures=pictures, codes=codes)
        self.register_to_config(procedure=procedure, target=target, given=given, codec=codec)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        given: Mapping[str, Any] | None = None,
        generator: Any = None,
        guidance_scale: float | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        noise: Callable[..., Tensor] | None = None,
    ) -> Any:
        """``given``: by name, a class (name or number) or caption for all, a list of them, or a tensor of rows.  A
        class that is not given is drawn as often as in the training data.

        ``guidance_scale`` 1 is the network's own answer (None: as the recipe says); ``output_type`` pil, np or pt;
        ``noise(*shape)`` replaces the standard normal numbers of ``generator``.
        """
        drawn = noise or (lambda *shape: self._normal(batch_size, shape, generator))
        asked = {name: self._rows(name, field, (given or {}).get(name), batch_size, generator)
                 for name, field in self.config["given"].items()}  # fmt: skip
        procedure = self.config["procedure"]
        asked |= {name: self.codes(asked[name]) for name in procedure.get("before", ())}
        if procedure["kind"] == "denoise":
            guidance = procedure["guidance"] if guidance_scale is None else guidance_scale
            x = self._denoise(drawn, asked, guidance)
        elif procedure["kind"] == "decode":
            z = drawn(procedure["n_latent"])
            if procedure["latent"] == "uniform" and noise is None:
                z = 2 * torch.special.ndtr(z) - 1
            x = self.network(z, *asked.values())
        else:
            x = self.network(*asked.values())
        x = self.pictures(x) if self.pictures else x
        bounds = self.config["target"]["bounds"]
        x = x.clamp(*bounds) if bounds else x
        images = self._images(x, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _normal(self, n: int, shape: tuple[int, ...], generator: Any) -> Tensor:
        return randn_tensor((n, *shape), generator=generator, device=self.device, dtype=torch.float32)

    def _denoise(self, drawn: Callable[..., Tensor], given: dict[str, Tensor], guidance: float) -> Tensor:
        """x0 = a x + b y(c_in x, t),  x <- x_weight x + d x0 + previous x0_previous + noise z, for each row."""
        procedure = self.config["procedure"]
        target = procedure.get("target", self.config["target"])
        bounds = target["bounds"] if procedure["clip"] else None
        x = previous = procedure["first_sigma"] * drawn(*target["shape"])
        for step in self.progress_bar(procedure["steps"]):
            y, mix = self._predict(step["c_in"] * x, step["t"], given, guidance)
            x0 = step["a"] * x + step["b"] * y
            x0 = x0.clamp(*bounds) if bounds else x0
            x = step["x"] * x + step["d"] * x0 + step["previous"] * previous
            if step["noise"]:
                x = x + step["noise"] ** (1 - mix) * step["noise_max"] ** mix * drawn(*target["shape"])
            previous = x0
        return x

    def _predict(self, x: Tensor, t: float, given: dict[str, Tensor], guidance: float) -> tuple[Tensor, Any]:
        """What the network says, with classifier-free guidance, and where its variance lies between the bounds."""
        procedure = self.config["procedure"]
        channels = procedure.get("target", self.config["target"])["shape"][0]
        times = torch.full((len(x),), t, device=x.device)
        whole = self.network(x, times, *given.values())
        y, v = whole[:, :channels], whole[:, channels:]
        if guidance != 1:
            nothing = [self._nothing(name, value) for name, value in given.items()]
            none = self.network(x, times, *nothing)[:, :channels]
            y = none + guidance * (y - none)
        if procedure.get("logits"):
            y = torch.tanh(y / 2)
        variance = procedure.get("variance")
        return y, torch.sigmoid(v) if variance == "learned" else float(variance == "fixed-large")

    def _nothing(self, name: str, like: Tensor) -> Tensor:
        field = self.config["given"][name]
        values = {"Classes": len(field.get("names", ())), "Tokens": field.get("pad", 0), "Tensors": 0}
        return torch.full_like(like, values[field["type"]])

    def _rows(self, name: str, field: Mapping[str, Any], value: Any, n: int, generator: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(self.device)
        if field["type"] == "Tokens":
            return self._tokens(value, field, n)
        if field["type"] == "Tensors":
            raise ValueError(f"This model makes pictures from pictures; pass given={{'{name}': tensor in [-1, 1]}}.")
        if value is None:
            weights = torch.tensor(field["counts"] or [1] * len(field["names"]), dtype=torch.float64)
            first = generator[0] if isinstance(generator, list) else generator
            return torch.multinomial(weights, n, replacement=True, generator=first).to(self.device)
        several = list(value) if isinstance(value, list | tuple) else [value] * n
        numbers = [one if isinstance(one, int) else list(field["names"]).index(one) for one in several]
        return torch.tensor(numbers, device=self.device)

    def _tokens(self, texts: Any, field: Mapping[str, Any], n: int) -> Tensor:
        """Captions, one for all or a list of them, as rows of tokens; only these need the package tokenizers."""
        if not texts:
            return torch.full((n, 1), field["pad"], device=self.device)
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.config["codec"])
        several = [texts] * n if isinstance(texts, str) else texts
        rows = [[*tokenizer.encode(text, add_special_tokens=False).ids, field["eos"]] for text in several]
        length = min(max(map(len, rows)), field["context"])
        filled = [(row + [field["pad"]] * length)[:length] for row in rows]
        return torch.tensor(filled, device=self.device)

    def _images(self, x: Tensor, output_type: str) -> Any:
        if output_type == "pt":
            return x
        pixels = ((x + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).cpu().float().numpy()
        return self.numpy_to_pil(pixels) if output_type == "pil" else pixels
