"""Pictures compressed with a VAE come back to the last bit, or not at all with one sentence."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bowerbird.editing import Request, action_from, edit
from bowerbird.editing.compress import Contents, codec_of, digest_of, from_bytes, identity, numbered
from bowerbird.editing.decompress import decompressed
from bowerbird.eightbit import to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch
from bowerbird.models.local import LocalConfig
from bowerbird.models.lossy import LossyConfig
from bowerbird.models.vae import VAE, VAEConfig
from bowerbird.nets.grid import GridConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.samplers import bitsback
from bowerbird.samplers.bitsback import BINS, GRID, BitsBack, Histograms, values_of
from bowerbird.samplers.rangecoding import Reader, Writer, probabilities
from bowerbird.spec import Classes, Spec, Tensors

pytest.importorskip("constriction")

SHAPE = (1, 8, 8)


def trained(likelihood: str = "bernoulli", channels: int = 1, steps: int = 150) -> VAE:
    """A small VAE that knows squares."""
    torch.manual_seed(0)
    spec = Spec("image", Tensors((channels, 8, 8)))
    model = VAEConfig(net=MLPConfig(hidden=(32,)), n_latent=4, likelihood=likelihood).build(spec)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        x = torch.from_numpy(squares(32, channels, seed=None)).float() / 127.5 - 1
        (loss,) = model.losses(Batch(x))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
    return model


def squares(n: int, channels: int = 1, seed: int | None = 1, grey: bool = False) -> np.ndarray:
    """uint8 (n, c, 8, 8): a white square each, on black."""
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    images = np.zeros((n, channels, 8, 8), np.uint8)
    for image, (top, left, side, level) in zip(images, torch.randint(1, 5, (n, 4), generator=generator), strict=True):
        image[:, top : top + side, left : left + side] = int(level) * 60 if grey else 255
    return images


@pytest.fixture(scope="module")
def model() -> VAE:
    return trained()


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 200])
def test_pictures_come_back_bit_by_bit(model: VAE, n: int, grey: bool) -> None:
    images, nets = squares(n, grey=grey), bitsback.networks_of(model)
    packed = bitsback.compress(images, nets)
    assert sum(packed.batches) == n and values_of(images) == (256 if grey else 2)
    assert np.array_equal(bitsback.decompress(packed, SHAPE, values_of(images), nets), images)


@pytest.mark.parametrize(("likelihood", "channels"), [("gaussian", 1), ("discretised-logistic", 3)])
def test_every_likelihood_and_colour(likelihood: str, channels: int) -> None:
    model = trained(likelihood, channels, steps=5)
    images, nets = squares(70, channels, grey=True), bitsback.networks_of(model)
    packed = bitsback.compress(images, nets)
    assert np.array_equal(bitsback.decompress(packed, (channels, 8, 8), 256, nets), images)


def test_noise_of_every_value_comes_back_too(model: VAE) -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, *SHAPE), dtype=np.uint8)
    nets = bitsback.networks_of(model)
    packed = bitsback.compress(images, nets)
    assert np.array_equal(bitsback.decompress(packed, SHAPE, 256, nets), images)
    assert 7.5 < 32 * len(packed.words) / images.size < 11  # more than 8: the prior expects what a VAE does


def test_the_stack_grows_by_the_bound(model: VAE) -> None:
    images = squares(2000)
    packed = bitsback.compress(images, bitsback.networks_of(model))
    x = torch.from_numpy(images).float() / 127.5 - 1
    with torch.no_grad():
        bound = model.log_prob(Batch(x), n_samples=1, generator=torch.Generator().manual_seed(0))
    nats = -float(bound.mean())
    bits = 32 * (len(packed.words) - packed.n_borrowed) / len(images)
    assert abs(bits - nats / np.log(2)) < 0.12 * nats / np.log(2)  # histograms may know better than the model
    packed_png = sum(len(_png(image[0])) for image in images[:50]) / 50 * 8
    assert bits < packed_png / 5


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def test_the_number_of_threads_changes_no_bit(model: VAE) -> None:
    images, nets, before = squares(150, grey=True), bitsback.networks_of(model), torch.get_num_threads()
    words, back = [], []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            packed = bitsback.compress(images, nets)
            words.append(packed.words)
            torch.set_num_threads(4 - threads)
            back.append(bitsback.decompress(packed, SHAPE, 256, nets))
            assert torch.get_num_threads() == 4 - threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*words) and np.array_equal(back[0], images) and np.array_equal(back[1], images)


def test_a_network_that_rounds_differently_is_found_out(model: VAE) -> None:
    images = squares(70)
    coded = BitsBack(model).pack(images, lambda n: None)
    contents = Contents(coded, identity(model), SHAPE, numbered(70), digest_of(images))
    torch.manual_seed(1)
    other = trained(steps=10)
    with pytest.raises(BowerbirdError, match="do not come out as they went in"):
        decompressed(contents, other, "x.bb")


def test_files_are_compressed_and_given_back_with_their_names(model: VAE, tmp_path: Path) -> None:
    images = squares(30)
    for i, image in enumerate(images):
        Image.fromarray(image[0]).save(tmp_path / f"square {i}.png")
    made = edit(action_from("compress", {}), Request(model, {"source": [tmp_path]}))
    path = made.save(tmp_path / "x.bb")
    assert path == made.shown(path) and path.stat().st_size == len(made.content) and "30 pictures in" in made.summary
    back = edit(action_from("decompress", {}), Request(model, {"source": [path]}))
    folder = back.save(tmp_path / "back")
    for i, image in enumerate(images):
        assert np.array_equal(np.asarray(Image.open(folder / f"square {i}.png")), image[0])
    assert '"labelled": false' in (folder / "metadata.jsonl").read_text()
    with pytest.raises(BowerbirdError, match="only the same weights"):
        edit(action_from("decompress", {}), Request(trained(steps=1), {"source": [path]}))


def test_every_flipped_byte_is_noticed(model: VAE, tmp_path: Path) -> None:
    made = edit(action_from("compress", {}), Request(model, {"source": list(squares(5).transpose(0, 2, 3, 1))}))
    content = made.content
    for at in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[at] ^= 1 + at % 255
        with pytest.raises(BowerbirdError, match=r"damaged|does not hold|another version"):
            from_bytes(bytes(flipped), "x.bb")
    for n in (0, 3, 8, 20, len(content) - 1):
        with pytest.raises(BowerbirdError):
            from_bytes(content[:n], "x.bb")


def test_what_cannot_be_given_back_is_refused(model: VAE, tmp_path: Path) -> None:
    def refused(image: Image.Image, what: str) -> None:
        image.save(tmp_path / "x.png")
        with pytest.raises(BowerbirdError, match=what):
            edit(action_from("compress", {}), Request(model, {"source": [tmp_path / "x.png"]}))

    refused(Image.new("L", (9, 8)), "x is 9x8 with 1 channel.*exactly 8x8")
    refused(Image.new("RGB", (8, 8)), "pixels of the kind RGB")
    refused(Image.new("I;16", (8, 8)), "pixels of the kind I")
    refused(Image.new("LA", (8, 8)), "pixels of the kind LA")
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(BowerbirdError, match="cannot be read as a picture"):
        edit(action_from("compress", {}), Request(model, {"source": [tmp_path / "x.png"]}))
    for action, what in (("compress", "give files or folders"), ("decompress", "takes one file")):
        with pytest.raises(BowerbirdError, match=what):
            edit(action_from(action, {}), Request(model))
    with pytest.raises(BowerbirdError, match="does not hold pictures"):
        edit(action_from("decompress", {}), Request(model, {"source": [tmp_path / "x.png"]}))
    labelled = VAEConfig(net=MLPConfig(hidden=(8,))).build(
        Spec("image", Tensors(SHAPE), {"label": Classes(("a", "b"))})
    )
    with pytest.raises(BowerbirdError, match="trained with labels"):
        edit(action_from("compress", {}), Request(labelled, {"source": list(squares(2))}))


def test_histograms_learn_and_forget() -> None:
    table = Histograms(256)
    table.add(np.array([3, 3, 50]), np.array([7, 7, 9]))
    weights = table.counts[3] + table.prior[3]
    assert weights.argmax() == 7
    table.add(np.array([3, 3, 50]), np.array([7, 7, 9]), -1)
    assert not table.counts.any() and np.allclose(table.prior.sum(1), bitsback.PRIOR_COUNT)


def test_rounding_is_to_grids_that_a_last_bit_cannot_cross(model: VAE) -> None:
    nets = bitsback.networks_of(model)
    x = squares(9)
    means, deviations = bitsback.posterior(nets, x)
    assert np.array_equal(means * 8, np.round(means * 8)) and np.abs(means).max() * GRID <= bitsback.EDGE
    assert set(deviations) <= set(bitsback._deviations())
    bins = bitsback.bins_of(nets, np.round(means).astype(np.int64).reshape(9, -1), BINS[256])
    assert bins.min() >= 0 and bins.max() < BINS[256] and len(bins) == x.size


# ------------------------------------------------------------------------------------- pixel by pixel, and with loss


def taught(model: Any, images: np.ndarray, steps: int) -> Any:
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    x = torch.from_numpy(images).float() / 127.5 - 1
    for _ in range(steps):
        (loss,) = model.losses(Batch(x[torch.randint(len(x), (16,))]))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def local() -> Any:
    torch.manual_seed(0)
    model = LocalConfig(n_hidden=24).build(Spec("image", Tensors((3, 8, 8))))
    return taught(model, squares(64, 3, seed=2, grey=True), steps=40)


@pytest.fixture(scope="module")
def lossy() -> Any:
    torch.manual_seed(0)
    net = GridConfig(channels=16, multipliers=(1,), patch=2)
    model = LossyConfig(net, n_latent=256, n_hidden=16).build(Spec("image", Tensors((3, 8, 8))))
    return taught(model, squares(64, 3, seed=2, grey=True), steps=150)


@pytest.mark.parametrize("n", [1, 70])
def test_a_local_model_gives_back_every_bit_whatever_the_threads(local: Any, n: int) -> None:
    images, before = squares(n, 3, grey=True), torch.get_num_threads()
    images[0] = np.random.default_rng(0).integers(0, 256, images[0].shape)
    try:
        torch.set_num_threads(1)
        coded = codec_of(local).pack(images, lambda n: None)
        torch.set_num_threads(3)
        assert np.array_equal(codec_of(local).unpack(coded, n, (3, 8, 8), lambda n: None), images)
    finally:
        torch.set_num_threads(before)


def test_what_a_local_model_pays_is_its_likelihood(local: Any) -> None:
    images = squares(100, 3, grey=True)
    coded = codec_of(local).pack(images, lambda n: None)
    bits = -float(local.log_prob(Batch(torch.from_numpy(images).float() / 127.5 - 1)).sum()) / np.log(2)
    assert abs(32 * len(coded.words) - bits) < 0.01 * bits + 64
    alone = sum(len(_png(image.transpose(1, 2, 0))) for image in images) * 8
    assert bits < alone / 4


def test_probabilities_are_of_all_values_and_survive_their_last_bits() -> None:
    log_p = torch.randn(50, 256, dtype=torch.float64).log_softmax(1)
    p = probabilities(log_p)
    assert np.allclose(p.sum(1), 1) and np.abs(np.log(p) - log_p.numpy()).max() < 0.02
    assert np.array_equal(p, probabilities(log_p * (1 + 1e-15)))
    writer, wanted = Writer(), torch.arange(50)
    writer(log_p, wanted, wanted)
    assert torch.equal(Reader(writer.coder.get_compressed())(log_p, wanted), wanted)


def test_with_loss_a_higher_quality_is_nearer_and_takes_more(lossy: Any, tmp_path: Path) -> None:
    images = squares(40, 3, grey=True)
    sizes, errors = [], []
    for quality in (0.0, 0.5, 1.0):
        made = edit(action_from("compress", {"quality": quality}), Request(lossy, {"source": list(to_last(images))}))
        back = edit(action_from("decompress", {}), Request(lossy, {"source": [made.save(tmp_path / f"{quality}.bb")]}))
        assert torch.equal(back.x, made.x)
        sizes.append(len(made.content))
        errors.append(float((back.x - torch.from_numpy(images).float() / 127.5 + 1).square().mean()))
        assert "dB from the originals" in made.summary
    assert sizes[0] < sizes[1] < sizes[2] and errors[2] < errors[0]


def test_what_is_measured_of_a_lossy_model_is_what_its_files_give_back(lossy: Any) -> None:
    images = squares(40, 3, grey=True)
    codec = lossy.codec()
    back = codec.unpack(codec.pack(images, lambda n: None, None), 40, (3, 8, 8), lambda n: None)
    with torch.no_grad():
        x = lossy.decode(lossy.encode(torch.from_numpy(images).float() / 127.5 - 1))
    differs = np.abs(back - to_uint8(x).numpy().astype(int)) > 1
    assert differs.mean() < 0.01 and back.std() > 10


def test_quality_is_refused_where_nothing_is_lost(local: Any) -> None:
    source = {"source": list(to_last(squares(2, 3)))}
    with pytest.raises(BowerbirdError, match="--quality does not apply: this run compresses without loss"):
        edit(action_from("compress", {"quality": 0.3}), Request(local, source))
    with pytest.raises(BowerbirdError, match="quality"):
        action_from("compress", {"quality": 1.5})


def to_last(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 2, 3, 1)
