"""ONNX: one small model of every family, and the samplers beside the graphs, without torch."""

import json
import os
import subprocess
import sys
import warnings
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made import LABELLED, made
from PIL import Image
from torch import nn

from bowerbird import registry
from bowerbird.config import ModelConfig
from bowerbird.data import tokenizers
from bowerbird.data.tokenizers import SPECIALS
from bowerbird.data.writing import write_wav
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.export import prove
from bowerbird.export.graph import recorded
from bowerbird.export.scripts import pictures, sounds, tokens
from bowerbird.export.target import Parity, Trained
from bowerbird.media.speech.soundset import levelled
from bowerbird.media.speech.spectrogram import Mel
from bowerbird.models.animation import AnimationConfig
from bowerbird.models.autoregressive import AutoregressiveConfig
from bowerbird.models.base import Piece, Positional
from bowerbird.models.diffusion import DiffusionConfig
from bowerbird.models.distillation import DistillationConfig
from bowerbird.models.fewlabels import FewLabelsConfig
from bowerbird.models.flow import FlowConfig
from bowerbird.models.gan import GANConfig
from bowerbird.models.latent import LatentConfig
from bowerbird.models.lossy import LossyConfig, mass
from bowerbird.models.rollout import RolloutConfig
from bowerbird.models.seq2seq import Seq2SeqConfig
from bowerbird.models.translation import TranslationConfig
from bowerbird.models.vae import VAEConfig
from bowerbird.models.vocoder import VocoderConfig
from bowerbird.models.vqvae import VQVAEConfig
from bowerbird.nets.convnet import ConvNetConfig
from bowerbird.nets.dit import DiTConfig
from bowerbird.nets.grid import GridConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.nets.rnn import RNNConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.nets.warp import WarpConfig
from bowerbird.samplers import decoding
from bowerbird.samplers.decoding import Sampling
from bowerbird.spec import Spec, Tensors, Tokens
from later import later

onnx = later("onnx")

SMALL = MLPConfig((16,))
PAIR = Spec("image", Tensors((3, 8, 8)), {"source": Tensors((3, 8, 8))})
LETTERS = tokenizers.chosen("char", ["abcdefgh ij\n"], [], 100, SPECIALS)
WORDS = Tokens(LETTERS.vocab_size, 24, LETTERS.bos, LETTERS.eos, LETTERS.pad, (LETTERS.bos,))
TEXT = Spec("text", WORDS, codec=LETTERS.to_json())
PAIRS = Spec("text", WORDS, {"source": WORDS}, codec=LETTERS.to_json())
MEL = Mel(8000, 8, 16, 96, 512)
VOICE = Spec("speech", Tensors((1, MEL.samples)), {"spectrogram": Tensors((1, 8, 16))}, MEL.beside())
ATTENTION = TransformerConfig(n_layer=1, n_head=2, n_embd=16)
PRIOR = FlowConfig(DiTConfig(n_layer=1, n_head=2, n_embd=16, patch=2), sample_steps=4, guidance=2.0)
CODES = VAEConfig(GridConfig(channels=8, multipliers=(1,), patch=2), n_latent=64, conditional=False)
UNET = UNetConfig(channels=8, multipliers=(1,), blocks=1, attention=(-1,))
WARP = WarpConfig(channels=8, multipliers=(1,), blocks=1, attention=(), reach=1)

FAMILIES: dict[str, tuple[ModelConfig, Spec, list[str]]] = {
    "gan": (GANConfig(SMALL, n_latent=4, latent="uniform"), LABELLED, ["generator", "sampler"]),
    "vae": (VAEConfig(SMALL, n_latent=4), LABELLED, ["decoder", "encoder", "sampler"]),
    "diffusion": (
        DiffusionConfig(UNET, variance="learned", timesteps=20, sampler="ddpm", sample_steps=4, guidance=2.0),
        LABELLED,
        ["denoiser", "sampler"],
    ),
    "translation": (TranslationConfig(SMALL), PAIR, ["forward", "sampler"]),
    "rnn": (
        AutoregressiveConfig(
            RNNConfig(n_layer=1, n_embd=8, dropout=0.1), sampling=Sampling(1.2, 0.9, top_k=6, top_p=0.9)
        ),
        TEXT,
        ["reader", "sampler"],
    ),
    "vqvae": (
        VQVAEConfig(ConvNetConfig(channels=8), ATTENTION, n_codes=12, n_embd=4),
        LABELLED,
        ["reader", "codebook", "decoder", "sampler"],
    ),
    "fewlabels": (
        FewLabelsConfig(SMALL, n_labels=6, n_latent=4),
        LABELLED,
        ["decoder", "classifier", "sampler"],
    ),
    "latent-pairs": (
        LatentConfig(CODES, replace(PRIOR, net=SMALL)),
        PAIR,
        ["denoiser", "pictures", "codes", "sampler"],
    ),
    "distillation": (
        DistillationConfig(DiffusionConfig(SMALL, schedule="edm", prediction="edm", guidance=2.0), sample_steps=3),
        LABELLED,
        ["denoiser", "sampler"],
    ),
    "rollout": (
        RolloutConfig(FlowConfig(WARP, prediction="x0", sample_steps=2, guidance=1.5), past=2),
        Spec("video", Tensors((3, 4, 8, 8)), {"first": Tensors((3, 8, 8))}),
        ["denoiser", "sampler"],
    ),
    "animation": (
        AnimationConfig(replace(PRIOR, net=replace(PRIOR.net, patch=1), prediction="x0"), channels=8, depth=2),
        Spec("video", Tensors((3, 3, 14, 12)), {"first": Tensors((3, 14, 12)), "label": LABELLED.given["label"]}),
        ["denoiser", "folded", "moved", "sampler"],
    ),
    "lossy": (
        LossyConfig(GridConfig(channels=8, multipliers=(1,), patch=2), n_latent=64, n_hidden=16),
        LABELLED.alone(),
        ["encoder", "context", "decoder", "sampler"],
    ),
    "vocoder": (VocoderConfig(channels=8, blocks=1, windows=(128,)), VOICE, ["generator", "sampler"]),
    "seq2seq": (Seq2SeqConfig(ATTENTION, beam=2), PAIRS, ["reader", "sampler"]),
}
"""Each kind of network in one family, perceptrons in the others: U-Nets in diffusion, convolutions in vqvae, and
transformers of patches in animation.
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, one_registry: None):
    """The folder and the parities of one family's export, made when they are first asked for."""
    found: dict[str, tuple[Path, list[Parity]]] = {}

    def of(name: str) -> tuple[Path, list[Parity]]:
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            config, spec, _ = FAMILIES[name]
            run = made(folder / "run", config, spec)
            found[name] = folder / "out", prove(Trained(run), registry.exports.get("onnx")(), folder / "out", "onnx")
        return found[name]

    return of


@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_and_samplers_equal_the_model_at_two_batch_sizes(exported, family):
    folder, parity = exported(family)
    assert [one.what for one in parity] == FAMILIES[family][2]
    most = 2e-5 if family == "rollout" else 1e-5  # it goes on from its own frames, with what they are off by
    assert [one for one in parity if one.batches != (1, 5) or not one.difference <= most < one.magnitude] == []
    for file in folder.glob("*.onnx"):
        graph = onnx.load(file)
        onnx.checker.check_model(graph)
        assert [one.version for one in graph.opset_import if not one.domain] == [18]
        assert all(one.type.tensor_type.shape.dim[0].dim_param for one in graph.graph.input)
        assert json.loads({one.key: one.value for one in graph.metadata_props}["bowerbird.spec"])["medium"]


@pytest.mark.parametrize(
    "extreme", [{"temperature": 1e-40}, {"temperature": 1e-300}, {"temperature": 1e-44, "top_k": 3, "top_p": 0.5}]
)
def test_at_tiny_temperatures_the_sampler_without_torch_is_greedy_as_ours_is(extreme):
    logits = np.random.default_rng(0).normal(0, 4, (5, 9)).astype(np.float32)
    sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | extreme
    sampler = tokens.Sampler.__new__(tokens.Sampler)
    sampler.procedure = {"sampling": sampling}
    past = np.zeros((5, 1), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = sampler.choose(logits, past, tokens.Rows(0, 5))
    assert chosen.tolist() == logits.argmax(1).tolist()
    ours = decoding.choose(torch.from_numpy(logits), decoding.Sampling(**sampling), Draws(0), torch.from_numpy(past))
    assert ours.tolist() == chosen.tolist()


@pytest.mark.parametrize("penalty", [1e-45, 1e-3, 1.5, 1e39])
def test_repetition_penalties_are_bounded_as_ours_are(penalty):
    logits = np.random.default_rng(1).normal(0, 4, (5, 9)).astype(np.float32)
    sampler, past = tokens.Sampler.__new__(tokens.Sampler), np.array([[0, 1, 2, 3]] * 5)
    sampler.procedure = {"sampling": {"temperature": 0, "repetition_penalty": penalty}}
    ours = decoding.repetition_penalty(torch.from_numpy(logits), torch.from_numpy(past), penalty)
    assert sampler.choose(logits, past, None).tolist() == ours.argmax(1).tolist()


NO_TORCH = (
    "import sys, runpy; sys.modules['torch'] = sys.modules['bowerbird'] = None; "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def run_script(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """sample.py in a Python in which torch and Bowerbird cannot be imported."""
    command = [sys.executable, "-c", NO_TORCH, str(folder / "sample.py"), *words]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def pixels(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))]


def test_pictures_come_out_without_torch(exported, tmp_path):
    folder, _ = exported("diffusion")
    done = run_script(
        folder, "--n", "3", "--seed", "5", "--label", "b", "--guidance", "3", "--out", str(tmp_path / "three")
    )
    assert done.returncode == 0, done.stderr
    assert (
        run_script(
            folder, "--n", "2", "--seed", "5", "--label", "b", "--guidance", "3", "--out", str(tmp_path / "two")
        ).returncode
        == 0
    )
    three, two = pixels(tmp_path / "three"), pixels(tmp_path / "two")
    assert [one.shape for one in three] == [(8, 8)] * 3 and three[0].std() > 0
    assert all((a == b).all() for a, b in zip(three, two, strict=False))  # sample i of a seed, whatever n
    assert "trainedAlgorithmicMedia" in Image.open(tmp_path / "two" / "00000.png").info["XML:com.adobe.xmp"]
    wrong = run_script(folder, "--label", "z", "--out", str(tmp_path / "none"))
    assert wrong.returncode == 1 and wrong.stderr == "There is no label 'z'; known: a, b, c.\n"


def test_pictures_of_pictures_and_texts_come_out_without_torch(exported, tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "red.png")
    done = run_script(exported("translation")[0], "--source", str(tmp_path / "red.png"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0 and pixels(tmp_path / "out")[0].shape == (8, 8, 3), done.stderr
    done = run_script(exported("rnn")[0], "--n", "2", "--prompt", "bad", "--out", str(tmp_path / "text"))
    said = (tmp_path / "text" / "samples.txt").read_text()
    assert done.returncode == 0 and said.startswith("bad") and said.count("bad") >= 2, done.stderr
    wrong = run_script(exported("rnn")[0], "--prompt", "Z")
    assert wrong.returncode == 1 and wrong.stderr == "The vocabulary of this model lacks the character 'Z'.\n"


def test_a_picture_passes_through_a_compressor_with_loss_without_torch(exported, tmp_path):
    folder, _ = exported("lossy")
    model = Trained(folder.parent / "run").model
    x = torch.rand(3, 1, 8, 8) * 2 - 1
    q = torch.full((3,), 0.8)
    codes = model.code(x, q).round()
    mean, scale = model.context(codes, q)
    bits = -mass(codes, mean, scale).clamp_min(1e-9).log2().flatten(1).sum(1)
    back, said = pictures.Sampler(folder).restored(x.numpy(), 0.8)
    assert np.allclose(back, model.picture(codes, q).clamp(-1, 1).detach(), atol=1e-5)
    assert np.allclose(said, bits.detach(), rtol=1e-4)
    Image.new("L", (8, 8), 200).save(tmp_path / "grey.png")
    done = run_script(
        folder, "--restore", str(tmp_path / "grey.png"), "--quality", "0.2", "--out", str(tmp_path / "out")
    )
    assert done.returncode == 0 and "bits per pixel" in done.stdout and len(pixels(tmp_path / "out")) == 1, done.stderr
    for words in (["--restore", "grey.png", "--quality", "7"], ["--quality", "0.2"]):
        wrong = run_script(folder, *words)
        assert wrong.returncode == 1 and wrong.stderr == "--quality goes with --restore, and is a number from 0 to 1.\n"
    wrong = run_script(folder, "--restore", str(tmp_path / "none.png"))
    assert wrong.returncode == 1 and wrong.stderr.startswith("Cannot read a picture: ") and "none.png" in wrong.stderr


def test_sound_comes_out_without_torch(exported, tmp_path):
    folder, _ = exported("vocoder")
    time = np.arange(1200) / 8000
    write_wav(tmp_path / "tone.wav", 0.3 * np.sin(2 * np.pi * 440 * time)[None], 8000)
    done = run_script(folder, str(tmp_path / "tone.wav"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    with wave.open(str(tmp_path / "out" / "00000.wav")) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (8000, MEL.samples)
    assert b"trainedAlgorithmicMedia" in (tmp_path / "out" / "00000.wav").read_bytes()
    seen = sounds.Sampler(folder).read(tmp_path / "tone.wav")
    with wave.open(str(tmp_path / "tone.wav")) as sound:
        tone = np.frombuffer(sound.readframes(1200), "<i2").astype(np.float32) / 32768
    ours = MEL.encoded(torch.from_numpy(levelled(tone, MEL))[None])
    assert np.abs(seen - ours.numpy()).max() < 1e-4
    write_wav(tmp_path / "fast.wav", np.zeros((1, 99)), 44100)
    wrong = run_script(folder, str(tmp_path / "fast.wav"))
    assert wrong.returncode == 1 and "is not a WAV file of 16 bits, one channel and 8,000 Hz" in wrong.stderr


def test_a_size_that_code_fixes_is_an_error(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(3, -1)

    piece = Piece(Positional(net := Fixed(), net.forward), {"x": Tensors((4,), None)}, "y")
    with pytest.raises(BowerbirdError, match="The part cannot be recorded"):
        recorded(piece, "part")


def test_the_recorded_network_keeps_the_mode_that_it_had():
    net = nn.Dropout(0.5).eval()
    piece = Positional(net, net.forward)
    assert not piece.training
    piece.train(piece.training)
    assert not net.training and torch.equal(net(torch.ones(8)), torch.ones(8))
