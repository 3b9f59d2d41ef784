"""Names that a fragment takes for granted: libraries, devices, options, loaders, optimisers, sizes."""

import argparse
import ast
import collections
import copy
import functools
import importlib
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional

from bowerbird.reading.running.shrinking import smaller
from bowerbird.reading.running.standins import words
from bowerbird.reading.running.standins.data import Images, Loader

Replace = Callable[[str, str], None]

_LIBRARIES: dict[str, Any] = {
    "torch": torch, "nn": nn, "F": functional, "optim": optim, "np": np, "numpy": np, "math": math, "random": random,
    "Variable": torch.autograd.Variable, "Tensor": torch.Tensor, "FloatTensor": torch.FloatTensor, "copy": copy,
    "partial": functools.partial, "defaultdict": collections.defaultdict, "OrderedDict": collections.OrderedDict,
    "Counter": collections.Counter, "namedtuple": collections.namedtuple, "init": nn.init,
    "autograd": torch.autograd, "Parameter": nn.Parameter, "DataLoader": torch.utils.data.DataLoader,
    "Dataset": torch.utils.data.Dataset, "TensorDataset": torch.utils.data.TensorDataset, "Adam": optim.Adam,
    "SGD": optim.SGD, "AdamW": optim.AdamW, "Module": nn.Module, "wraps": functools.wraps,
}  # fmt: skip
_BY_IMPORT = {
    "os": "os", "sys": "sys", "time": "time", "json": "json", "re": "re", "datetime": "datetime",
    "itertools": "itertools", "argparse": "argparse", "pickle": "pickle", "glob": "glob", "warnings": "warnings",
    "typing": "typing",
    "plt": "matplotlib.pyplot", "tqdm": "tqdm.tqdm", "trange": "tqdm.trange", "transforms": "torchvision.transforms",
    "datasets": "torchvision.datasets", "torchvision": "torchvision", "save_image": "torchvision.utils.save_image",
    "make_grid": "torchvision.utils.make_grid", "T": "torchvision.transforms", "MNIST": "torchvision.datasets.MNIST",
    "vutils": "torchvision.utils", "rearrange": "einops.rearrange", "repeat": "einops.repeat",
    "reduce": "einops.reduce",
    "einsum": "torch.einsum", "Image": "PIL.Image", "dist": "torch.distributed", "SummaryWriter":
    "torch.utils.tensorboard.SummaryWriter", "List": "typing.List", "Optional": "typing.Optional",
    "Tuple": "typing.Tuple",
    "Dict": "typing.Dict", "Any": "typing.Any", "Callable": "typing.Callable", "Union": "typing.Union",
    "dataclass": "dataclasses.dataclass", "Path": "pathlib.Path", "wandb": "wandb", "pd": "pandas", "cv2": "cv2",
    "spectral_norm": "torch.nn.utils.spectral_norm", "weight_norm": "torch.nn.utils.weight_norm",
    "repeat_interleave": "torch.repeat_interleave", "exists": "os.path.exists", "sqrt": "math.sqrt", "pi": "math.pi",
}  # fmt: skip

_NUMBERS: tuple[tuple[re.Pattern[str], Any], ...] = tuple(
    (re.compile(pattern, re.I), value)
    for pattern, value in (
        (r"pretrained|ckpt$|^checkpoint$|load_model$", ""), (r"batch_?size|^bs$|^bsz$|^b$", 16),
        (r"(n_?|num_?)?epochs?$|max_epoch", 2),
        (r"(latent|z|noise|nz|code|embed_z)_?(dim|size)?$|latent", 100),
        (r"(learning_?rate|^lr)", 2e-4),
        (r"^(b1|beta1|beta_1)$", 0.5), (r"^(b2|beta2|beta_2)$", 0.999), (r"^betas$", (0.9, 0.999)),
        (r"n_?critic|critic_iter|d_steps?|n_dis", 5),
        (r"clip_value|clip$|weight_clip", 0.01), (r"lambda_?gp|gp_lambda|gp_weight", 10.0),
        (r"(img|image)_?(size|dim)|^(h|w|height|width|resolution)$|im_size", 28),
        (r"(img_?|image_|in_|out_|input_|n_?)?channels?$|^(c|nc|n_ch)$", 1),
        (r"(img|image|data|x|input)_?shape", (1, 28, 28)),
        (r"(n_?|num_?)class(es)?|n_?labels?|num_?labels?", 10),
        (r"(n_?|num_?)heads?$|^(h|heads|n_?head|nhead)$", 4),
        (r"(n_?|num_?)layers?$|^(depth|nlayers|n)$|n_blocks?", 2),
        (r"d_?model|emb(ed(ding)?)?_?(dim|size)?$|n_?embd|hidden_?(dim|size|units)?$", 64),
        (r"^dim$", 96), (r"^(d|nhid|width|ninp|emsize)$", 64),
        (r"d_?ff|ff(n)?_?(dim|size)|inner_dim|mlp_dim|dim_feedforward", 128),
        (r"(src_|tgt_|trg_|n_)?vocab(_?size)?|ntokens?|num_tokens|vocab_len|input_vocab", 100),
        (r"(max_?)?(seq(uence)?_?)?len(gth)?$|block_size|context|max_len|bptt|window", 32),
        (r"(n_?|num_?)?(time_?steps?|diffusion_steps)|^T$|n_?steps", 100),
        (r"drop(out)?(_?(prob|rate|p))?$|^p$", 0.1),
        (r"(input|in|image|x|data)_?(dim|size|features)|in_feat", 784),
        (r"(output|out|y)_?(dim|size|features)", 784),
        (r"(n_|num_)?embeddings?|codebook_size|^k$", 32), (r"(pad|padding)_?(idx|id|token)?$", 0),
        (r"beta_?start", 1e-4), (r"beta_?end", 0.02), (r"^(beta|kl_weight|kld_weight|gamma|temperature|tau)$", 1.0),
        (r"iter(ation)?s?$", 6), (r"n_?cpu|num_?workers|workers|local_rank|rank|gpu", 0), (r"world_size", 1),
        (r"log_?interval|print_?(every|freq)|sample_?interval|eval_?interval|save_?(every|interval|freq)", 1),
        (r"seed|manual_?seed", 0), (r"eps(ilon)?$", 1e-5), (r"decay|momentum|ema", 0.99),
        (r"cuda|use_gpu|use_cuda|parallel|resume|debug|ddp|(^|_)amp(_|$)|fp16", False),
        (r"ngf|ndf|base_?(ch|dim)|filters|features|^f$", 16), (r"(n_|num_)?groups|num_residual|patch(_size)?|size$", 4),
        (r"dataset$|data_?name", "mnist"),
        (r"(data_?)?(root|dir|path|folder|file(name)?)|^(out|output|save|log)", "data"),
        (r"dimension$", 64),
        (r"(^|_)(name|mode|type|arch)s?$|^model$|^model_|model_(name|type|id)", "model"),
        (r"_(idx|index)$", 0), (r"device", "cpu"), (r"prompt|text", "The bower was built"),
        (r"bidirectional|causal", False), (r"(n_|num_)?samples?|^n", 8), (r"dim|size|channels|units", 32),
    )
)  # fmt: skip
_LOADERS = re.compile(
    r"(data_?|train_?|test_?|val(id(ation)?)?_?|mnist_?|trn|tr)*_?(loader|dl|iter(ator)?|batches)$|^dataloader", re.I
)


_PICTURES = "x imgs images real_imgs inputs real img image batch real_images x_0 x0".split()


def option(name: str) -> Any:
    """A plausible value for a setting, by its name."""
    return next((value for pattern, value in _NUMBERS if pattern.search(name)), 1)


def known(name: str) -> bool:
    """Whether a setting's name tells what it holds."""
    return any(pattern.search(name) for pattern, _ in _NUMBERS)


class Options(argparse.Namespace):
    """Settings of which every name has a value: the project's own where it sets one, else a usual one."""

    project: ClassVar[dict[str, Any]] = {}
    given: ClassVar[list[tuple["Options", str, Any]]] = []
    """What was made up or looked up, in order."""

    def __init__(self, section: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.__dict__["_section"] = section or {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = self.__dict__["_section"].get(name)
        value = setting(name) if value is None else sized(name, value)
        setattr(self, name, value)
        self.given.append((self, name, value))
        return value

    def __getitem__(self, name: str) -> Any:
        return getattr(self, str(name))

    def get(self, name: str, default: Any = None) -> Any:
        """The setting of this name; ``default`` where the project sets none."""
        return getattr(self, name) if name in self else default

    def __contains__(self, name: str) -> bool:
        return name in self.__dict__["_section"] or name in self.project or name in vars(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        return list(self.__dict__["_section"])

    def add(self, names: Iterable[str]) -> None:
        """These settings are among those that are handed on."""
        self.__dict__["_section"].update({name: setting(name) for name in names})

    @classmethod
    def mend(cls, error: Exception) -> bool:
        """Makes a group of settings of a value of which attributes were asked, or which was handed on by name; whether
        there was one."""
        kind = re.search(r"must be a mapping, not (\w+)", str(error))
        for options, name, value in reversed(cls.given):
            asked = isinstance(error, AttributeError) and value is error.obj
            if (asked or (kind and type(value).__name__ == kind.group(1))) and not isinstance(value, Options):
                setattr(options, name, Options())
                cls.given.append((options, name, getattr(options, name)))
                return True
        return False


WIDEST = 64
_WIDTHS = re.compile(r"(^|_)(channels?|dim|n_feat|ch|filters|features|n_embd|d_model|width)$", re.I)


def setting(name: str) -> Any:
    """The project's value for a setting, made small, else a plausible one by its name."""
    value = Options.project.get(name)
    return option(name) if value is None or value == "" else sized(name, value)


def sized(name: str, value: Any) -> Any:
    """A setting made small enough to run quickly; a dictionary becomes settings."""
    if isinstance(value, dict):
        return Options(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value < 0 and re.search("rank|gpu", name):
        return 0
    return min(smaller(name, value), WIDEST if _WIDTHS.search(name) else value)


class Surroundings:
    """Gives a fragment the names that it takes for granted, and says so."""

    def __init__(
        self, tree: ast.Module, namespace: dict[str, Any], replace: Replace, shape: tuple[int, ...] | None
    ) -> None:  # fmt: skip
        self.tree, self.namespace, self.replace = tree, namespace, replace
        self.shape: tuple[int, ...] = shape or _shape_in(tree)
        self._given: set[str] = set()
        self._called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}

    def provide(self, name: str, line: int, namespace: dict[str, Any] | None = None) -> bool:
        """Binds a stand-in to a name; False where there is none (or it was tried before)."""
        space = self.namespace if namespace is None else namespace
        if not name or name in self._given or name in space:
            return False
        self._given.add(name)
        value, reason = self._value(name)
        if value is None:
            return False
        space[name] = value
        self.replace(name, f"{reason} (line {line})")
        return True

    def _value(self, name: str) -> tuple[Any, str]:
        if name in _LIBRARIES:
            return _LIBRARIES[name], "the name is not imported; the usual library was taken"
        if name in _BY_IMPORT:
            return _imported(_BY_IMPORT[name]), "the name is not imported; the usual library was taken"
        lower = name.lower()
        if lower in ("device", "dev"):
            return torch.device("cpu"), "the name is not defined; the CPU was taken"
        if lower in ("opt", "args", "config", "cfg", "hparams", "params", "hp", "flags", "options", "conf", "c"):
            return Options(), "the name is not defined; settings with usual values were taken"
        if _LOADERS.match(name):
            settings = (self.namespace.get(n) for n in ("opt", "args", "config", "hp", "cfg"))
            size = next((vars(s)["batch_size"] for s in settings if "batch_size" in getattr(s, "__dict__", {})), None)
            size = size or self.namespace.get("batch_size") or _constant(self.tree, "batch_size") or 16
            size = size if isinstance(size, int) and 0 < size <= 64 else 16
            loader = Loader(self.shape, size, low=_lowest(self.tree))
            return loader, f"the name is not defined; a loader of {self.shape} stand-in images was taken"
        if lower in ("dataset", "train_dataset", "train_data", "test_data", "trainset", "data", "train_set", "testset"):
            return Images(self.shape), f"the name is not defined; {self.shape} stand-in images were taken"
        return self._by_kind(name, lower)

    def _by_kind(self, name: str, lower: str) -> tuple[Any, str]:
        said = "the name is not defined; a stand-in took its place"
        if lower in ("text", "corpus", "raw_text"):
            return words.text(30_000), said
        if lower in ("writer", "logger", "log", "wandb", "accelerator", "scheduler"):
            return _imported("stand_in_of_a_logger"), said
        if lower in _PICTURES:
            pictures = next(iter(Loader(self.shape, 16, low=_lowest(self.tree))))
            return pictures[0], said
        if lower in ("labels", "y", "target", "targets"):
            return torch.arange(16) % 10, said
        if lower in ("criterion", "loss_fn", "loss_function", "loss_func"):
            return nn.CrossEntropyLoss(), said
        if re.fullmatch(r"(adversarial_loss|bce(_loss)?)", lower):
            return nn.BCELoss(), said
        if re.fullmatch(r"(optim(izer)?(_\w+)?|opt_\w+)", lower):
            modules = [v for v in self.namespace.values() if isinstance(v, nn.Module)]
            wanted = [v for k, v in self.namespace.items() if isinstance(v, nn.Module) and k[:1].lower() == lower[-1:]]
            parameters = [p for m in (wanted or modules)[:1] for p in m.parameters()]
            return (optim.Adam(parameters, lr=2e-4), said) if parameters else (None, "")
        if known(name) and name not in self._called:
            return option(name), "the name is not defined; a usual value was taken"
        return None, ""


def _imported(path: str) -> Any:
    """A module, or what a module holds: the latter first, since a stand-in has a module for every name."""
    holder, _, name = path.rpartition(".")
    held = getattr(importlib.import_module(holder), name, None) if holder else None
    return importlib.import_module(path) if held is None else held


def _constant(tree: ast.Module, name: str) -> Any:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            if any(isinstance(t, ast.Name) and t.id.lower() == name for t in node.targets):
                return node.value.value
    return None


def _lowest(tree: ast.Module) -> float:
    """0 for programs whose outputs end in a sigmoid or whose loss needs [0, 1], else -1."""
    words_used = {n.attr.lower() for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    return -1.0 if "tanh" in words_used and "binary_cross_entropy" not in words_used else 0.0


def _shape_in(tree: ast.Module) -> tuple[int, int, int]:
    """The shape of images that a program's own constants suggest."""
    size = _first_int(tree, "img_size", "image_size", "imgsz") or 28
    channels = _first_int(tree, "channels", "nc", "in_channels", "img_channels")
    return (channels or (1 if size in (28, 32) else 3), size, size)


def _first_int(tree: ast.Module, *names: str) -> int:
    values = (_constant(tree, name) for name in names)
    return next((value for value in values if isinstance(value, int)), 0)
