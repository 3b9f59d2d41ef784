"""Tiny runs of every kind that a server tells apart, trained for two steps."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import KEY

from bowerbird import api, config
from bowerbird.models.autoregressive import AutoregressiveConfig
from bowerbird.models.flow import FlowConfig
from bowerbird.models.seq2seq import Seq2SeqConfig
from bowerbird.models.translation import TranslationConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.serve.app import served
from bowerbird.serve.gate import Keys
from bowerbird.serve.limits import Limits
from bowerbird.serve.service import Engine

TRAIN = config.Train(steps=2, batch_size=4, device="cpu", threads=1)
NET = TransformerConfig(n_layer=1, n_head=2, n_embd=16)
SENTENCES = ["the cat sat on the mat", "a dog ran to the sea", "one bird sang in a tree"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> dict[str, Path]:
    """Name → run folder: classes, edits, text, chat, pairs, music."""
    folder = tmp_path_factory.mktemp("served")
    rows = [{"text": f"{SENTENCES[i % 3]} {i}."} for i in range(60)]
    talk = [{"messages": _talk(i)} for i in range(60)]
    for name, lines in (("text", rows), ("chat", talk)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "pairs.tsv").write_text("".join(f"one {i}\tyi {i}\n" for i in range(60)))
    chars = config.Text(tokenizer="char", context=64)
    made = {
        "classes": config.Run(FlowConfig(net=MLPConfig(), sample_steps=3), config.Data(str(tiny)), TRAIN),
        "edits": config.Run(
            TranslationConfig(net=UNetConfig(channels=8, multipliers=(1,), blocks=1)),
            config.Data(str(tiny), from_="lower", to="upper", size=16, channels="rgb"),
            TRAIN,
        ),
        "text": config.Run(AutoregressiveConfig(net=NET), config.Data(str(folder / "text.jsonl"), text=chars), TRAIN),
        "chat": config.Run(
            AutoregressiveConfig(net=NET),
            config.Data(str(folder / "chat.jsonl"), text=config.Text(tokenizer="byte", context=256)),
            TRAIN,
        ),
        "pairs": config.Run(Seq2SeqConfig(net=NET), config.Data(str(folder / "pairs.tsv"), text=chars), TRAIN),
        "music": config.Run(
            AutoregressiveConfig(net=NET), config.Data("chorales", music=config.Music(context=48)), TRAIN
        ),
    }
    with pytest.MonkeyPatch.context() as without_reports:
        without_reports.setattr("bowerbird.api.training._write_report", lambda folder: None)
        return {name: api.train(run, folder / name, quiet=True) for name, run in made.items()}


def _talk(i: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"hello {i}"}, {"role": "assistant", "content": f"you said {i}"}]


@pytest.fixture(scope="session")
def address(runs: dict[str, Path]) -> Iterator[str]:
    """A server of all of them, on a free port of this machine."""
    engine = Engine(runs, limits=Limits(body_mb=4.0, body_seconds=1.0, waiting=256))
    with served(engine, keys=Keys([KEY, "another"])) as where:
        yield where
