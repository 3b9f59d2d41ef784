"""Editing pictures: what is known stays, what is asked for is made, and the rest is refused in a sentence."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bowerbird import api, cli, config, registry
from bowerbird.draws import Draws
from bowerbird.editing import Request, action_from, actions_of, edit
from bowerbird.editing.inpaint import Inpaint
from bowerbird.editing.latents import psnr_db, slerp
from bowerbird.eightbit import to_float, to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.metrics.features import Digits
from bowerbird.models.base import GenerativeModel
from bowerbird.samplers import known
from bowerbird.samplers.integrate import Denoised, Denoising, integrate, path, resampled
from bowerbird.samplers.schedule import EDM, FlowSchedule, Schedule, cosine
from bowerbird.spec import Classes, Spec, Tensors

SIDE = 16
COLOUR = Spec("image", Tensors((3, SIDE, SIDE)))
LABELLED = Spec("image", Tensors((1, SIDE, SIDE)), {"label": Classes(("a", "b", "c"))})
FROM_PICTURES = Spec("image", Tensors((1, SIDE, SIDE)), {"source": Tensors((1, SIDE, SIDE))})
UNET = {"name": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
CONVNET = {"name": "convnet", "channels": 8, "n_hidden": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "flow": {"net": UNET, "sample_steps": 3},
    "diffusion": {"net": UNET, "sample_steps": 3},
    "vae": {"net": CONVNET, "n_latent": 5},
    "gan": {"net": CONVNET, "n_latent": 5},
    "translation": {"net": UNET},
    "latent": {
        "autoencoder": {"family": "vae", "net": {"name": "grid", "channels": 8, "patch": 2}, "n_latent": 256},
        "prior": {"family": "flow", "net": UNET, "sample_steps": 3},
    },
}
QUICK: dict[str, dict[str, Any]] = {
    "inpaint": {"box": [2, 3, 9, 8], "steps": 3, "resample": 2},
    "upscale": {"steps": 3},
    "interpolate": {"frames": 3},
    "traverse": {"frames": 3, "directions": 2},
}


def built(family: str, spec: Spec, **settings: Any) -> GenerativeModel:
    torch.manual_seed(0)
    model: GenerativeModel = config.model_from({"family": family} | FAMILIES[family] | settings, "test").build(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def pictures(n: int, channels: int = 3, side: int = SIDE) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (n, side, side, channels), dtype=np.uint8))


def asked(action: str, model: GenerativeModel, options: dict[str, Any] | None = None, **request: Any) -> Any:
    return edit(action_from(action, QUICK.get(action, {}) | (options or {})), Request(model, **request))


@pytest.fixture(scope="session")
def digits() -> GenerativeModel:
    return api.load("digits", "cpu")


@pytest.fixture(scope="session")
def some() -> tuple[Tensor, Tensor]:
    """24 digits of the test split in [-1, 1], and which they are."""
    split = open_data(config.Data(source="digits")).test
    batch = split.batch(torch.arange(24))
    return batch["x"], batch["given"]["label"]


def arrays(x: Tensor) -> list[np.ndarray]:
    return list(to_uint8(x).permute(0, 2, 3, 1).contiguous().numpy())


# ------------------------------------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("family", FAMILIES)
def test_every_model_does_what_it_lists_and_refuses_the_rest_in_a_sentence(family: str) -> None:
    spec = FROM_PICTURES if family == "translation" else COLOUR
    model = built(family, spec)
    can = actions_of(model)
    for action in registry.actions.names():
        side = SIDE // 4 if action == "upscale" else SIDE
        source = None if family == "gan" else pictures(2, spec.target.shape[0], side)  # type: ignore[union-attr]
        words = {} if source is None else {"source": source}
        if action == "decompress" and action in can:
            continue  # takes what compress made: test_compression
        if action in can:
            edited = asked(action, model, words=words)
            assert edited.x.shape[1:] == model.spec.target.shape  # type: ignore[union-attr]
            assert edited.x.abs().max() <= 1 and len(edited.rows) == len(edited)
            assert torch.equal(edited.x, asked(action, model, words=words).x)
        else:
            with pytest.raises(BowerbirdError, match=rf"^This run cannot {action}: it .*{can[0]}.*\.$"):
                asked(action, model, words=words)


def test_which_family_can_do_what() -> None:
    can = {family: set(actions_of(built(family, COLOUR))) for family in FAMILIES if family != "translation"}
    latents = {"interpolate", "invert", "reconstruct", "vary"}
    assert can["flow"] == can["diffusion"] == can["latent"] == latents | {"inpaint", "upscale"}
    assert can["vae"] == latents | {"traverse", "compress", "decompress"}
    assert can["gan"] == {"interpolate"}
    assert actions_of(built("translation", FROM_PICTURES)) == ["restyle"]


def test_a_result_depends_on_its_own_place_alone() -> None:
    model, two = built("flow", COLOUR), pictures(2)
    for action in ("inpaint", "vary"):
        both, first = (asked(action, model, words={"source": some}).x for some in (two, two[:1]))
        assert torch.allclose(both[:1], first, atol=1e-5)
        assert not torch.allclose(first, asked(action, model, words={"source": two[:1]}, seed=1).x, atol=1e-2)


# ------------------------------------------------------------------------------------------------------- completing


@pytest.mark.parametrize("family", ["flow", "diffusion", "latent"])
def test_known_pixels_are_exact_in_the_files(family: str, tmp_path: Path) -> None:
    """Of 64×64 pixels, where every other picture gets a watermark."""
    side = 64
    model, source = built(family, Spec("image", Tensors((3, side, side)))), pictures(1, side=side)
    folder = asked("inpaint", model, words={"source": source}).save(tmp_path)
    written = np.asarray(Image.open(folder / "00000.png"))
    hidden = np.zeros((side, side), bool)
    hidden[3:8, 2:9] = True
    assert (written[~hidden] == source[0][~hidden]).all()
    assert (written[hidden] != source[0][hidden]).any()


def test_a_mask_says_the_same_as_its_box(tmp_path: Path, digits: GenerativeModel, some: tuple[Tensor, Tensor]) -> None:
    mask = np.zeros((28, 28), np.uint8)
    mask[8:20, 6:20] = 255
    Image.fromarray(mask).save(tmp_path / "white.png")
    erased = np.dstack([np.full((28, 28, 3), 90, np.uint8), 255 - mask])
    Image.fromarray(erased).save(tmp_path / "erased.png")
    words = {"source": arrays(some[0][:1])}
    by_box = edit(Inpaint(box=(6, 8, 20, 20), steps=4), Request(digits, words)).x
    for given in (tmp_path / "white.png", tmp_path / "erased.png", mask > 0):
        assert torch.equal(edit(Inpaint(steps=4), Request(digits, words | {"mask": given})).x, by_box)


def test_completed_digits_are_read_as_what_they_were(digits: GenerativeModel, some: tuple[Tensor, Tensor]) -> None:
    """All 24 with their labels, which the covered digits do not show: the middle is grey to the classifier."""
    x, label = some
    read = Digits(torch.device("cpu")).classify
    words = {"source": arrays(x), "label": [str(int(one)) for one in label]}
    edited = asked("inpaint", digits, {"box": [0, 12, 28, 28], "steps": 12, "resample": 1}, words=words)
    covered = torch.where(torch.arange(28)[None, None, :, None] >= 12, -1.0, x)
    assert (read(to_uint8(covered)) == label).float().mean() < 0.75
    assert (read(to_uint8(edited.x)) == label).float().mean() >= 0.95


SCHEDULES = [FlowSchedule(), cosine(100), EDM()]


def denoiser_of_pair(rho: float, schedule: Schedule) -> Any:
    """E[x_0 | x_t] of pictures of two pixels, N(0, 1) each with the correlation rho: linear, and exact."""
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]])

    def denoise(x_t: Tensor, t: float) -> Denoised:
        alpha, sigma = (float(f(torch.tensor(t, dtype=torch.float64))) for f in (schedule.alpha, schedule.sigma))
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2))
        return Denoised((x_t.flatten(1) @ gain.T).view_as(x_t))

    return denoise


class Together(Draws):
    """Random numbers of all rows at once: quicker, where no row has to have its own."""

    def randn(self, n: int, *shape: int) -> Tensor:
        return torch.randn(n, *shape)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["flow", "cosine", "edm"])
def test_resampling_keeps_the_distribution(schedule: Schedule) -> None:
    torch.manual_seed(0)
    p = path(schedule, schedule.times(100))
    noise = p.sigma[0] * torch.randn(4000, 1, 1, 2)
    x = integrate(denoiser_of_pair(0.8, schedule), noise, resampled(p, 3), generator=Together(0)).flatten(1)
    assert torch.allclose(x.T.cov(), torch.tensor([[1.0, 0.8], [0.8, 1.0]]), atol=0.12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["flow", "cosine", "edm"])
def test_the_unknown_follows_from_the_known(schedule: Schedule) -> None:
    """The left pixel is known to be 1, so the right one is N(rho, 1 - rho²)."""
    torch.manual_seed(0)
    rho, n = 0.8, 4000
    truth = torch.ones(n, 1, 1, 2)
    hidden = torch.tensor([False, True]).view(1, 1, 1, 2)
    p = path(schedule, schedule.times(100))
    way = Denoising(denoiser_of_pair(rho, schedule), p, "ddpm", None)
    noise = p.sigma[0] * torch.randn(n, 1, 1, 2)
    x = integrate(known.holding(way, known.pixels(truth, hidden)), noise, resampled(p, 2), generator=Together(0))
    assert torch.equal(x[..., 0], truth[..., 0])
    assert abs(float(x[..., 1].mean()) - rho) < 0.06 and abs(float(x[..., 1].std()) - 0.6) < 0.08


# ------------------------------------------------------------------------------------------------------- enlarging


def test_averages_are_held_and_nothing_else_is_moved() -> None:
    y, d = torch.rand(2, 3, 4, 4) * 2 - 1, torch.rand(2, 3, 16, 16)
    held = known.averages(y, 4)(d)
    assert torch.allclose(torch.nn.functional.avg_pool2d(held, 4), y, atol=1e-6)
    assert torch.allclose(known.averages(y, 4)(held), held, atol=1e-6)
    blocks = (held - d).unfold(2, 4, 4).unfold(3, 4, 4).flatten(4)
    assert float((blocks - blocks[..., :1]).abs().max()) < 1e-6  # the nearest such picture: one shift per block


def test_an_enlarged_digit_averages_to_the_small_one_and_beats_bicubic(
    digits: GenerativeModel, some: tuple[Tensor, Tensor]
) -> None:
    x = to_float(to_uint8(some[0]))
    small = torch.nn.functional.avg_pool2d(x, 4)
    edited = asked("upscale", digits, {"factor": 4, "steps": 12}, words={"source": arrays(small)})
    assert float((torch.nn.functional.avg_pool2d(edited.x, 4) - small).abs().mean()) < 0.02
    bicubic = torch.stack(
        [
            torch.from_numpy(np.asarray(Image.fromarray(one[..., 0]).resize((28, 28), Image.Resampling.BICUBIC)).copy())
            for one in arrays(small)
        ]
    )[:, None]
    assert float(psnr_db(edited.x, x).mean()) > float(psnr_db(to_float(bicubic), x).mean())


# ------------------------------------------------------------------------------------------------------- latents


def test_slerp_turns_evenly_and_keeps_the_length() -> None:
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    share = torch.tensor([0.0, 0.25, 0.5, 1.0])
    angle = share * math.pi / 2
    expected = 3 * torch.stack([angle.cos(), angle.sin()], 1)
    assert torch.allclose(slerp(a.expand(4, 2), b.expand(4, 2), share), expected, atol=1e-6)
    assert torch.allclose(slerp(a, 2 * a, torch.tensor([0.5])), 1.5 * a)


@pytest.mark.parametrize("family", ["flow", "diffusion", "vae", "gan", "latent"])
def test_an_interpolation_begins_and_ends_with_the_samples_of_its_seed(family: str) -> None:
    model = built(family, COLOUR)
    x = asked("interpolate", model, {"frames": 4}, seed=3, n=3).x
    with torch.no_grad():
        samples = model.sample(3, generator=Draws(3))
    assert len(x) == 8
    for frame, sample in ((0, 0), (3, 1), (4, 1), (7, 2)):
        assert torch.allclose(x[frame], samples[sample], atol=1e-3)
    assert not torch.allclose(x[1], x[0], atol=1e-3)


def test_uniform_latents_stay_within_their_range() -> None:
    model = built("gan", COLOUR, latent="uniform")
    x = asked("interpolate", model, {"frames": 3}, seed=3, n=2).x
    with torch.no_grad():
        assert torch.allclose(x[::2], model.sample(2, generator=Draws(3)), atol=1e-3)


def test_from_one_label_to_another(digits: GenerativeModel) -> None:
    edited = asked("interpolate", digits, {"frames": 5, "noise": "shared"}, words={"label": ["3", "8"]})
    read = Digits(torch.device("cpu")).classify(to_uint8(edited.x))
    assert read[[0, -1]].tolist() == [3, 8]
    with pytest.raises(BowerbirdError, match="Only diffusion and flow models can go from one label"):
        asked("interpolate", built("gan", LABELLED), words={"label": ["a", "b"]})


def test_digits_come_back_from_their_noise(digits: GenerativeModel, some: tuple[Tensor, Tensor]) -> None:
    source = arrays(some[0][:4])
    edited = asked("reconstruct", digits, words={"source": source})
    assert min(row["psnr_db"] for row in edited.rows) > 30
    inverted = asked("invert", digits, words={"source": source})
    assert inverted.latents is not None and inverted.latents.shape == (4, 1, 28, 28)


def test_variations_depart_with_their_strength(digits: GenerativeModel, some: tuple[Tensor, Tensor]) -> None:
    words = {"source": arrays(some[0][:6])}
    near, far = (asked("vary", digits, {"strength": s}, words=words).x for s in (0.2, 0.9))
    distance = [float(psnr_db(x, some[0][:6]).mean()) for x in (near, far)]
    assert distance[0] > 25 > distance[1]


def test_directions_are_sorted_by_what_they_tell() -> None:
    model: Any = built("vae", COLOUR)
    with torch.no_grad():  # dimension 3 tells most, then 1; the others are the prior
        last = model.encoder.head.out if hasattr(model.encoder, "head") else list(model.encoder.modules())[-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0, 1.0, 0, 2.0, 0] + [0.0] * 5))
    edited = asked("traverse", model, {"directions": 3, "frames": 3, "reach": 2.0})
    rows = edited.rows
    assert [row["dimension"] for row in rows[::3]][:2] == [3, 1]
    assert [round(row["kl_nats"], 3) for row in rows[::3]] == [2.0, 0.5, 0.0]
    assert [row["value"] for row in rows[:3]] == [-2.0, 0.0, 2.0]
    assert edited.columns == 3 and len(edited) == 9


# ------------------------------------------------------------------------------------------------------- wrong input


def test_wrong_input_is_refused_in_one_sentence(digits: GenerativeModel, tmp_path: Path) -> None:
    def refused(action: str, match: str, options: dict[str, Any], **words: Any) -> None:
        with pytest.raises(BowerbirdError, match=match) as error:
            edit(action_from(action, options), Request(digits, {"source": pictures(1, 1, 28)} | words))
        assert "\n" not in str(error.value) and str(error.value)[-1] in ".?"

    def saved(name: str, mask: np.ndarray) -> Path:
        Image.fromarray(mask).save(tmp_path / name)
        return tmp_path / name

    black, large = (saved(f"{side}.png", np.zeros((side, side), np.uint8)) for side in (28, 32))
    broken = tmp_path / "broken.png"
    broken.write_bytes(black.read_bytes()[:40])
    refused("inpaint", "either --box LEFT TOP RIGHT BOTTOM or --mask", {})
    refused("inpaint", "either --box", {"box": [0, 0, 4, 4]}, mask=black)
    refused("inpaint", "The box 20 0 30 4 does not lie in a picture of 28x28", {"box": [20, 0, 30, 4]})
    refused("inpaint", "The box 4 4 4 9 does not lie", {"box": [4, 4, 4, 9]})
    refused("inpaint", "The mask is 32x32 pixels, but the pictures are 28x28", {}, mask=large)
    refused("inpaint", "The mask covers nothing", {}, mask=black)
    refused("inpaint", "cannot be read as a picture", {}, mask=broken)
    refused("inpaint", "does not exist", {}, mask=tmp_path / "none.png")
    refused("inpaint", "cannot be read as a picture", {"box": [0, 0, 4, 4]}, source=broken)
    refused("inpaint", "3 channels.*1 channel", {"box": [0, 0, 4, 4]}, source=pictures(1, 3, 28))
    refused("inpaint", "There is no picture to complete", {"box": [0, 0, 4, 4]}, source=None)
    refused("inpaint", "steps", {"box": [0, 0, 4, 4], "steps": 0})
    refused("inpaint", "did you mean 'resample'", {"resampel": 3})
    refused("vary", "A mask does not apply to vary", {}, mask=black)
    refused("upscale", "28x28, which --factor 3 does not divide; give one of 2, 4, 7", {"factor": 3})
    refused("vary", "strength", {"strength": 0.0})
    refused("vary", "did you mean|There is no", {}, label="eleven")
    refused("interpolate", "There is nothing to go to", {})
    with pytest.raises(BowerbirdError, match="There is no action 'inpant'; did you mean 'inpaint'"):
        action_from("inpant", {})


def test_a_model_that_always_had_its_label_must_be_told(digits: GenerativeModel) -> None:
    model = built("flow", LABELLED, label_dropout=0.0)
    words: dict[str, Any] = {"source": pictures(1, 1)}
    with pytest.raises(BowerbirdError, match="never trained without its label; say which, with --label a"):
        asked("inpaint", model, words=words)
    assert len(asked("inpaint", model, words=words | {"label": "a"})) == 1
    with pytest.raises(BowerbirdError, match="never trained without its label"):
        asked("reconstruct", built("vae", LABELLED), words=words)


# ------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], some: tuple[Tensor, Tensor]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for i, one in enumerate(arrays(some[0][:2])):
        Image.fromarray(one[..., 0]).save(tmp_path / "in" / f"digit-{i}.png")
    assert cli.main(["edit", "digits"]) == 0
    assert "inpaint\n" in capsys.readouterr().out
    command = "edit digits inpaint --source in --box 0 14 28 28 --steps 3 --label 7 1 --json"
    assert cli.main(command.split()) == 0
    said = json.loads(capsys.readouterr().out)
    assert {"digit-0.png", "digit-1.png", "sheet.png", "metadata.jsonl"} <= set(said["files"])
    rows = [json.loads(line) for line in Path(said["folder"], "metadata.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == ["7", "1"] and rows[0]["action"] == "inpaint"
    assert rows[0]["box"] == [0, 14, 28, 28]
    assert api.verify(Path(said["folder"], "digit-0.png")).judgement == "claimed"
    assert cli.main("edit digits interpolate --frames 3 --steps 3 -n 2 --out film".split()) == 0
    film = Image.open(tmp_path / "film" / "film.gif")
    assert getattr(film, "n_frames", 1) == 3 and Image.open(tmp_path / "film" / "film.webp").format == "WEBP"
    assert api.verify(tmp_path / "film" / "film.webp").judgement == "claimed"


def test_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in (
        ("edit digits inpant", "There is no action 'inpant'; did you mean 'inpaint'?"),
        ("edit poem", "poem can do no action: it makes no pictures."),
        ("edit emoji-3d inpaint", "This run cannot inpaint: it makes pictures from pictures; what it can do: restyle."),
        (f"edit {tmp_path} inpaint", "run"),
        ("edit digits inpaint --bxo 1 2 3 4", "There is no flag --bxo; did you mean --box?"),
    ):
        assert cli.main(words.split()) == 2
        assert sentence in capsys.readouterr().err
