"""A recipe of ours as a source: the family's file, and a small program that drives it (``drivers/``).

The driver is a stand-in and is shown as one: it builds the recipe's model in a small size, gives it made-up data of the
same kind, and does by hand what the trainer does.  Nothing here knows a family: models are imported by the child only.
"""

from pathlib import Path
from typing import Any

import jinja2

import bowerbird
from bowerbird import config
from bowerbird.reading.source import Source, parse

PACKAGE = Path(bowerbird.__file__).parent
_SMALL = {"channels": 8, "n_embd": 32, "n_layer": 2, "n_encoder_layer": 2, "n_head": 4, "hidden": 32, "width": 32}
_FILLED = {
    "seq2seq": {"field": '{"source": tokens}', "given": '{"source": torch.randint(3, vocab_size, (8, context))}',
                "sampled": "given"},
    "autoregressive": {"field": "{}", "given": "{}", "sampled": "options=model.Options(n_tokens=8)"},
    "translation": {"field": '{"source": Tensors((1, 16, 16))}', "given": '{"source": x.flip(0)}'},
    "": {"field": '{"label": Classes(tuple("0123456789"))}', "given": '{"label": label}'},
}  # fmt: skip
"""What the driver of a family says beside its model."""


def driven(target: Path | str) -> tuple[Source, tuple[str, ...]] | None:
    """The source of a recipe and the files to read, or None if the target is no recipe's name (or is a file)."""
    name = str(target)
    if Path(name).exists() or name not in config.recipe_names():
        return None
    table = config.read_toml(config.find(name))
    family = PACKAGE / "models" / f"{table['model']['family']}.py"
    driver = str(PACKAGE.parent / f"drive_{name.replace('-', '_')}.py")
    texts = {driver: program(name, table), str(family): family.read_text(encoding="utf-8")}
    trees = {file: parse(words, file) for file, words in texts.items()}
    return Source(family, driver, texts, trees, PACKAGE.parent), (str(family), driver)


def program(name: str, table: dict[str, Any]) -> str:
    """The text of the driver."""
    model, train = smaller(table["model"]), table.get("train", {})
    family, digits = model["family"], table.get("data", {}).get("source") in ("digits", "mnist")
    tokens = family == "seq2seq" or (family == "autoregressive" and not digits)
    decay = f", weight_decay={train['weight_decay']}" if "weight_decay" in train else ""
    template = Path(__file__).parent / "drivers" / ("tokens.txt" if tokens else "images.txt")
    filled = _FILLED[family if tokens or family == "translation" else ""]
    return jinja2.Template(template.read_text(encoding="utf-8"), keep_trailing_newline=True).render(
        name=name, model="{\n" + "".join(f"    {key!r}: {value!r},\n" for key, value in model.items()) + "}",
        kind="AdamW" if train.get("optimizer") == "adamw" else "Adam", lr=train.get("lr", 1e-3),
        betas=tuple(train.get("betas", (0.9, 0.999))), decay=decay, **filled,
    )  # fmt: skip


def smaller(model: dict[str, Any]) -> dict[str, Any]:
    """A recipe's model with widths and depths that run in a moment; everything that makes its method is kept."""
    small: dict[str, Any] = {k: smaller(v) if isinstance(v, dict) else v for k, v in model.items()}
    return small | {k: min(small[k], most) for k, most in _SMALL.items() if isinstance(small.get(k), int)}
