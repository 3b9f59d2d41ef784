"""Tiny runs in the places of the shipped ones, and a studio over them on a port of its own."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from studio_site import Site, running

from bowerbird import api, config
from bowerbird.models.autoregressive import AutoregressiveConfig
from bowerbird.models.flow import FlowConfig
from bowerbird.models.translation import TranslationConfig
from bowerbird.models.vae import VAEConfig
from bowerbird.nets.dit import DiTConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.nets.unet import UNetConfig

TRAIN = config.Train(steps=2, batch_size=4, device="cpu", threads=1)
NET = TransformerConfig(n_layer=1, n_head=2, n_embd=16)
CHARACTERS = config.Text(tokenizer="char", context=64)
MUSIC = config.Music(context=96, grid="quarter")
RUNS = {
    "poem": config.Run(AutoregressiveConfig(net=NET), config.Data("tang-5", text=CHARACTERS), TRAIN),
    "chorale": config.Run(AutoregressiveConfig(net=NET), config.Data("chorales", music=MUSIC), TRAIN),
    "digits": config.Run(FlowConfig(net=MLPConfig(), sample_steps=3), config.Data("digits"), TRAIN),
    "emoji-3d": config.Run(
        TranslationConfig(net=UNetConfig(channels=8, multipliers=(1,), blocks=1)),
        config.Data("emoji", from_="flat", to="3d", size=16),
        TRAIN,
    ),
    "emoji-text": config.Run(
        FlowConfig(net=DiTConfig(n_layer=1, n_head=2, n_embd=16, patch=4), sample_steps=2),
        config.Data(
            "emoji",
            size=16,
            given=("style", "group", "caption"),
            wordings=("caption", "caption_zh"),
            text=config.Text(tokenizer="word"),
        ),
        TRAIN,
    ),
}


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → run folder, trained for two steps by the first worker that asks."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shipped-runs"
    if not folder.is_dir():
        making = tmp_path_factory.mktemp("shipped")
        for name, run in RUNS.items():
            trained(run, making / name)
        with contextlib.suppress(OSError):  # another worker was first
            making.rename(folder)
    return {name: folder / name for name in RUNS}


def trained(run: config.Run, folder: Path) -> Path:
    """A run without a report, which takes longer than its training."""
    with pytest.MonkeyPatch.context() as without:
        without.setattr("bowerbird.api.training._write_report", lambda folder: None)
        return api.train(run, folder, quiet=True)


@pytest.fixture(scope="session")
def codes(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A run with a latent space."""
    run = config.Run(VAEConfig(net=MLPConfig(), n_latent=3), config.Data(str(tiny)), TRAIN)
    return trained(run, tmp_path_factory.mktemp("codes") / "vae")


@pytest.fixture(scope="session")
def chatter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned chats."""
    folder = tmp_path_factory.mktemp("chatter")
    lines = [[("user", f"hello {i}"), ("assistant", f"you said {i}")] for i in range(40)]
    chats = [{"messages": [{"role": role, "content": text} for role, text in line]} for line in lines]
    (folder / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    data = config.Data(str(folder / "chats.jsonl"), text=config.Text(tokenizer="byte", context=128))
    return trained(config.Run(AutoregressiveConfig(net=NET), data, TRAIN), folder / "run")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shipped: dict[str, Path]) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("runs"), shipped) as one:
        yield one
