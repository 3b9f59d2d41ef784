"""A recipe of ours as a source: the family's file, and a small program that drives it.

The driver is a stand-in and is shown as one: it builds the recipe's model in a small size, gives it made-up data of the
same kind, and does by hand what the trainer does.  Nothing here knows a family: models are imported by the child only.
"""

import ast
from pathlib import Path
from typing import Any

import bowerbird
from bowerbird import config
from bowerbird.reading.source import Source, parse

PACKAGE = Path(bowerbird.__file__).parent
_SMALL: dict[str, Any] = {
    "channels": 8,
    "n_embd": 32,
    "n_layer": 2,
    "n_encoder_layer": 2,
    "n_head": 4,
    "hidden": 32,
    "width": 32,
}
_IMAGES = '''"""Drives the recipe {name} in a small size, on made-up images: a stand-in for data and trainer."""

import torch
from bowerbird import config
from bowerbird.models.base import Batch
from bowerbird.spec import Classes, Spec, Tensors
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.utils import save_image

torch.manual_seed(0)
spec = Spec("image", Tensors((1, 16, 16)), {field})
model = config.model_from({model}, "recipe").build(spec)
prepared = transforms.Compose([transforms.Resize(16), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
dataloader = DataLoader(datasets.MNIST("data", transform=prepared), batch_size=16, shuffle=True)
{optimizers}
model.train()
for step, (x, label) in enumerate(dataloader):
    given = {given}
    for loss in model.losses(Batch(x, given, step=step)):
        optimizers[loss.player].zero_grad()
        loss.value.backward()
        optimizers[loss.player].step()
        print(f"step {{step}} {{loss.player}} {{loss.value.item():.4f}}")
model.eval()
samples = model.sample(16, given)
save_image(samples / 2 + 0.5, "samples.png", nrow=4)
'''
_TOKENS = '''"""Drives the recipe {name} in a small size, on made-up tokens: a stand-in for data and trainer."""

import torch
from bowerbird import config
from bowerbird.models.base import Batch
from bowerbird.spec import Spec, Tokens

torch.manual_seed(0)
vocab_size, context = 40, 24
tokens = Tokens(vocab_size, context, bos=1, eos=2, pad=0, start=(1,))
spec = Spec("text", tokens, {field})
model = config.model_from({model}, "recipe").build(spec)
{optimizers}
model.train()
for step in range(6):
    x = torch.randint(3, vocab_size, (8, context + 1))
    given = {given}
    for loss in model.losses(Batch(x, given, step=step)):
        optimizers[loss.player].zero_grad()
        loss.value.backward()
        optimizers[loss.player].step()
        print(f"step {{step}} {{loss.player}} {{loss.value.item():.4f}}")
model.eval()
print(model.sample(8, {sampled}))
'''


def driven(target: Path | str) -> tuple[Source, tuple[str, ...]] | None:
    """The source of a recipe and the files to read, or None if the target is no recipe's name (or is a file)."""
    name = str(target)
    if Path(name).exists() or name not in config.recipe_names():
        return None
    table = config.read_toml(config.find(name))
    family = PACKAGE / "models" / f"{table['model']['family']}.py"
    driver = str(PACKAGE.parent / f"drive_{name.replace('-', '_')}.py")
    text = program(name, table)
    texts = {driver: text, str(family): family.read_text(encoding="utf-8")}
    trees: dict[str, ast.Module] = {file: parse(words, file) for file, words in texts.items()}
    source = Source(family, driver, texts, trees, PACKAGE.parent)
    return source, (str(family), driver)


def program(name: str, table: dict[str, Any]) -> str:
    """The text of the driver."""
    model = smaller(table["model"])
    train = table.get("train", {})
    kind = "AdamW" if train.get("optimizer") == "adamw" else "Adam"
    betas = tuple(train.get("betas", (0.9, 0.999)))
    decay = f", weight_decay={train['weight_decay']}" if "weight_decay" in train else ""
    optimizers = (
        "optimizers = {\n"
        f"    player: torch.optim.{kind}(net.parameters(), lr={train.get('lr', 1e-3)}, betas={betas}{decay})\n"
        "    for player, net in model.players.items()\n}"
    )
    pairs = model["family"] == "seq2seq"
    if pairs or (
        model["family"] == "autoregressive" and table.get("data", {}).get("source") not in ("digits", "mnist")
    ):
        return _TOKENS.format(
            name=name, model=_table(model), optimizers=optimizers, field='{"source": tokens}' if pairs else "{}",
            given='{"source": torch.randint(3, vocab_size, (8, context))}' if pairs else "{}",
            sampled="given" if pairs else "options=model.Options(n_tokens=8)",
        )  # fmt: skip
    from_pictures = model["family"] == "translation"
    return _IMAGES.format(
        name=name, model=_table(model), optimizers=optimizers,
        field='{"source": Tensors((1, 16, 16))}' if from_pictures else '{"label": Classes(tuple("0123456789"))}',
        given='{"source": x.flip(0)}' if from_pictures else '{"label": label}',
    )  # fmt: skip


def smaller(model: dict[str, Any]) -> dict[str, Any]:
    """A recipe's model with widths and depths that run in a moment; everything that makes its method is kept."""
    small = {k: smaller(v) if isinstance(v, dict) else v for k, v in model.items()}
    for key, most in _SMALL.items():
        if isinstance(small.get(key), int):
            small[key] = min(small[key], most)
    return small


def _table(model: dict[str, Any]) -> str:
    """A table as a Python literal, one entry a line."""
    rows = "".join(f"    {key!r}: {value!r},\n" for key, value in model.items())
    return "{\n" + rows + "}"
