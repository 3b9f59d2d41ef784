"""A checkpoint: everything that a language model is, between a file of another program and a run folder."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bowerbird import config, machine
from bowerbird.data.tokenizers import CONFIG_FILE, Tokenizer
from bowerbird.data.writing import write_atomically
from bowerbird.errors import BowerbirdError
from bowerbird.export.target import Trained
from bowerbird.export.vocabulary import beginning, begins_with_bos
from bowerbird.models.autoregressive import AutoregressiveConfig
from bowerbird.nets.lora import LoRAConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.samplers.decoding import Sampling
from bowerbird.spec import Spec, Tokens
from bowerbird.training.rundir import RunDir, load_model

PREFIX = "net."
"""Begins the names of a net's tensors in its model."""
FINE_TUNE = "fine-tune.toml"
"""Left in the run folder of an imported model: bowerbird train FOLDER/fine-tune.toml --data CHATS"""


@dataclass(frozen=True)
class Checkpoint:
    """A language model by itself."""

    net: TransformerConfig
    context: int
    """Most tokens that it was made to read at once."""
    weights: dict[str, Tensor]
    """By the names of ``bowerbird.nets.transformer.Transformer``."""
    tokenizer: Tokenizer
    sampling: Sampling = Sampling()
    """How its makers want tokens to be chosen."""

    @property
    def vocab_size(self) -> int:
        """Tokens that the network knows; it may know more than the tokenizer."""
        return len(self.weights["embedding.token.weight"])

    @property
    def spec(self) -> Spec:
        tokenizer = self.tokenizer
        start = (tokenizer.bos,) if begins_with_bos(tokenizer) else _new_line(tokenizer) or (tokenizer.bos,)
        target = Tokens(self.vocab_size, self.context, tokenizer.bos, tokenizer.eos, tokenizer.pad, start)
        return Spec("text", target, codec=tokenizer.to_json(), chat_template=tokenizer.chat_template)

    def to_run(self, out: Path, source: Path) -> Path:
        """Makes a run folder of it; BowerbirdError if there is one already or the weights do not fit."""
        spec = self.spec
        model = AutoregressiveConfig(net=self.net, sampling=self.sampling)
        self._check(model, spec, source)
        data = config.Data(str(source.resolve()), "chat" if spec.chat_template else "text")
        run = config.Run(model, data, title=f"imported from {source.name}")
        folder = RunDir.create(out, run, machine.describe())
        # Beside tokenizer.json it says which tokens begin and end a text, where their names do not.
        roles = self.tokenizer.files()[CONFIG_FILE]
        write_atomically(folder.path / CONFIG_FILE, lambda p: p.write_text(roles, encoding="utf-8"))
        weights = {PREFIX + name: tensor.contiguous() for name, tensor in self.weights.items()}
        folder.save_model(weights, spec, step=0)
        folder.write_text(FINE_TUNE, config.dumps(_fine_tuning(model, folder.path.resolve())))
        return folder.path

    def _check(self, model: AutoregressiveConfig, spec: Spec, source: Path) -> None:
        last = max((*self.tokenizer.core.get_vocab(with_added_tokens=True).values(), *self.sampling.also_eos))
        if last >= self.vocab_size:
            raise BowerbirdError(
                f"{source}: the tokenizer has a token number {last}, but the embedding has only {self.vocab_size} "
                "rows, so they belong to different models; use the tokenizer that the model was trained with."
            )
        with torch.device("meta"):
            expected = model.build(spec).state_dict()
        for name, tensor in expected.items():
            found = self.weights.get(name.removeprefix(PREFIX))
            if found is None or found.shape != tensor.shape:
                what = "missing" if found is None else f"of shape {tuple(found.shape)}"
                raise BowerbirdError(f"{source}: '{name}' is {what}, but must be of shape {tuple(tensor.shape)}.")


def _fine_tuning(imported: AutoregressiveConfig, start: Path) -> config.Run:
    """A recipe that goes on from ``start`` with low-rank corrections, on data that are still to be named."""
    model = replace(imported, lora=LoRAConfig(rank=16))
    data = config.Data("name-your-own-with--data", text=config.Text(tokenizer=str(start), context=256))
    train = config.Train(
        examples=3000, batch_size=8, optimizer="adamw", lr=1e-3, betas=(0.9, 0.99), warmup_steps=20,
        schedule="cosine", clip_norm=1.0, ema_decay=0.98, validate_every=100, sample_every=0, checkpoint_every=100,
        start=str(start),
    )  # fmt: skip
    return config.Run(model, data, train, title=f"fine-tuned from {start.name}")


def _new_line(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What text that does not begin with bos can always begin after; nothing if the vocabulary does not have it."""
    try:
        return tuple(tokenizer.encode("\n"))
    except BowerbirdError:
        return ()


def require_language_model(trained: Trained) -> TransformerConfig:
    """The Transformer of a language model; BowerbirdError for a run that is none."""
    model = trained.run.model
    if not (isinstance(model, AutoregressiveConfig) and isinstance(model.net, TransformerConfig)):
        raise BowerbirdError(
            f"{trained.path} cannot be exported: other programs support only autoregressive Transformers."
        )
    spec = trained.spec
    if spec.medium != "text" or "source" in spec.given or not isinstance(spec.target, Tokens):
        raise BowerbirdError(f"{trained.path} cannot be exported: other programs support only language models of text.")
    return model.net


def from_run(run: Path) -> Checkpoint:
    """The language model of a run folder, low-rank adapters merged."""
    trained = Trained(run)
    net = require_language_model(trained)
    family: Any = trained.run.model
    model, spec = load_model(run)
    target: Any = spec.target
    tokenizer = Tokenizer.from_spec(spec)
    if target.start == (target.bos,) and not begins_with_bos(tokenizer):
        table = json.loads(spec.codec) | {
            "post_processor": beginning(tokenizer.core.id_to_token(target.bos) or "", target.bos)
        }
        tokenizer = Tokenizer.from_spec(replace(spec, codec=json.dumps(table)))
    return Checkpoint(net, target.context, dict(model.net.state_dict()), tokenizer, family.sampling)
