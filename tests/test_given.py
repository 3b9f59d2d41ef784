"""What images are made from: pairs in every layout, unpaired domains, attributes, captions, pictures of users."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bowerbird import api, cli, config
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.eightbit import to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.generating import draw
from bowerbird.media import open_data
from bowerbird.media.giving import read_given
from bowerbird.media.image.imageset import ImageData
from bowerbird.media.image.supplied import supplied
from bowerbird.spec import Classes, Spec, Tensors, Tokens

SIDE = 8


def save(path: Path, level: int, width: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIDE, width), level, np.uint8)).save(path)


def opened(folder: Path, **options: object) -> ImageData:
    data = open_data(config.Data(str(folder), **options))  # type: ignore[arg-type]
    assert isinstance(data, ImageData)
    return data


def pairs_of(data: ImageData) -> set[tuple[int, int]]:
    """(source, target) by the one level of each picture."""
    found = set()
    for split in (data.train, data.val, data.test):
        batch = split.batch(torch.arange(len(split)))
        sources, targets = (to_uint8(x)[:, 0, 0, 0].tolist() for x in (batch["given"]["source"], batch["x"]))
        found |= set(zip(sources, targets, strict=True))
    return found


LEVELS = [(10 + i, 110 + i) for i in range(40)]


def test_two_folders_are_pairs_by_name_whatever_their_suffix(tmp_path: Path) -> None:
    for i, (source, target) in enumerate(LEVELS):
        save(tmp_path / "source" / f"{i}.png", source)
        save(tmp_path / "target" / f"{i}.bmp", target)
    save(tmp_path / "target" / "alone.png", 250)
    data = opened(tmp_path)
    assert pairs_of(data) == set(LEVELS) == pairs_of(opened(tmp_path, from_="flat", to="3d"))  # of recipe emoji-3d
    assert data.spec.given == {"source": Tensors((1, SIDE, SIDE))}
    assert "left out: 1 without a partner" in data.summary()


def test_metadata_names_the_source(tmp_path: Path) -> None:
    rows = []
    for i, (source, target) in enumerate(LEVELS):
        save(tmp_path / f"drawing-{i}.png", source)
        save(tmp_path / f"photo-{i}.png", target)
        rows.append({"file_name": f"photo-{i}.png", "source": f"drawing-{i}.png"})
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert pairs_of(opened(tmp_path)) == set(LEVELS)


@pytest.mark.parametrize("side", ["source-left", "source-right"])
def test_halves_of_one_picture(tmp_path: Path, side: str) -> None:
    for i, (source, target) in enumerate(LEVELS):
        left, right = (source, target) if side == "source-left" else (target, source)
        picture = np.repeat(np.array([[left, right]], np.uint8), SIDE, axis=1).repeat(SIDE, axis=0)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    data = opened(tmp_path, halves=side)
    assert pairs_of(data) == set(LEVELS)
    assert data.spec.target == Tensors((1, SIDE, SIDE))


def test_a_picture_is_made_of_itself_made_smaller(tmp_path: Path) -> None:
    for i in range(20):
        noise = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise.repeat(4, 0).repeat(4, 1)).save(tmp_path / f"{i}.png")
    data = opened(tmp_path, shrink=4)
    assert (
        data.spec.given == {"source": Tensors((3, 32, 32))} and len(data.train) + len(data.val) + len(data.test) == 20
    )
    large, source = data.test.images[:1], data.test.given["source"][:1]
    small = Image.fromarray(large[0].permute(1, 2, 0).numpy()).resize((8, 8), Image.Resampling.LANCZOS)
    small.save(tmp_path / "small.png")
    with pytest.warns(UserWarning, match="resized to 32x32"):
        given, _ = supplied([tmp_path / "small.png"], (3, 32, 32))
    assert (to_uint8(given).int() - source.int()).abs().float().mean() < 1  # a user's small picture looks the same
    with pytest.raises(BowerbirdError, match="8x8 cannot become 16 times smaller; lower --data.shrink"):
        opened(tmp_path, shrink=16, size=8)


def test_styles_are_paired_by_what_they_share(tmp_path: Path) -> None:
    rows = []
    for i, (source, target) in enumerate(LEVELS):
        for style, level in (("ink", source), ("oil", target), ("chalk", 200)):
            save(tmp_path / f"{style}-{i}.png", level)
            rows.append({"file_name": f"{style}-{i}.png", "style": style, "subject": f"thing {i}"})
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert pairs_of(opened(tmp_path, from_="ink", to="oil")) == set(LEVELS)
    with pytest.raises(BowerbirdError, match="did you mean 'ink'"):
        opened(tmp_path, from_="inkk", to="oil")
    with pytest.raises(BowerbirdError, match="go together"):
        opened(tmp_path, from_="ink")
    with pytest.raises(BowerbirdError, match="different"):
        opened(tmp_path, from_="ink", to="ink")


def test_pictures_without_styles_say_what_pairs_look_like(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", i)
    with pytest.raises(
        BowerbirdError, match="no pictures in the styles flat and 3d; bring folders source/ and target/"
    ):
        opened(tmp_path, from_="flat", to="3d")


def test_cyclegan_folders_are_two_domains_whose_test_pictures_are_never_trained_on(tmp_path: Path) -> None:
    for i in range(20):
        save(tmp_path / "trainA" / f"{i}.png", 10 + i)
        save(tmp_path / "trainB" / f"b{i}.png", 110 + i)
    for i in range(5):
        save(tmp_path / "testA" / f"{i}.png", 60 + i)
        save(tmp_path / "testB" / f"b{i}.png", 160 + i)
    data = opened(tmp_path)
    assert data.train.unpaired and data.test.unpaired
    torch.manual_seed(0)
    drawn = [data.train.batch(torch.arange(len(data.train))) for _ in range(30)]
    sources = {level for batch in drawn for level in to_uint8(batch["given"]["source"])[:, 0, 0, 0].tolist()}
    targets = {level for batch in drawn for level in to_uint8(batch["x"])[:, 0, 0, 0].tolist()}
    assert sources <= set(range(10, 30)) and targets <= set(range(110, 130)) and len(sources) > 15
    assert set(data.test.images[:, 0, 0, 0].tolist()) == set(range(160, 165))
    assert "belong to none of them" in data.summary()


def test_a_mirrored_picture_and_its_source_are_mirrored_together(tmp_path: Path) -> None:
    for i in range(20):
        ramp = np.tile(np.arange(SIDE, dtype=np.uint8) * 10 + i, (SIDE, 1))
        for folder in ("source", "target"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(ramp).save(tmp_path / folder / f"{i}.png")
    data = opened(tmp_path, flip=True)
    torch.manual_seed(0)
    batch = data.train.batch(torch.arange(len(data.train)))
    assert torch.equal(batch["x"], batch["given"]["source"])
    falling = batch["x"][:, 0, 0, 0] > batch["x"][:, 0, 0, -1]
    assert 0 < falling.sum() < len(falling)


def test_several_attributes_and_a_caption(tmp_path: Path) -> None:
    rows = []
    for i in range(300):
        save(tmp_path / f"{i}.png", i % 200)
        row = {"hair": f"hair{i % 3}", "hat": "yes" if i % 2 else "no", "caption": f"picture number {i}"}
        rows.append({"file_name": f"{i}.png"} | row)
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = opened(tmp_path, given=("hair", "hat", "caption"))
    hair, hat, caption = (data.spec.given[name] for name in ("hair", "hat", "caption"))
    assert (
        isinstance(hair, Classes) and hair.names == ("hair0", "hair1", "hair2") and sum(hair.counts) == len(data.train)
    )
    assert isinstance(hat, Classes) and hat.names == ("no", "yes") and isinstance(caption, Tokens)
    batch = data.train.batch(torch.arange(5))["given"]
    said = [Tokenizer.from_spec(data.spec).decode(row.tolist()) for row in batch["caption"]]
    numbers = [int(text.removeprefix("picture number ")) for text in said]
    assert batch["hair"].tolist() == [n % 3 for n in numbers] and batch["hat"].tolist() == [n % 2 for n in numbers]
    with pytest.raises(BowerbirdError, match="did you mean 'hair'"):
        opened(tmp_path, given=("hairs",))


HAIR, PICTURE = Classes(("short01", "short02", "long01")), Tensors((3, SIDE, SIDE))
FACES = Spec("image", PICTURE, {"hair": HAIR, "source": PICTURE})


def test_words_become_tensors_and_wrong_ones_get_the_nearest(tmp_path: Path) -> None:
    save(tmp_path / "b.png", 128, width=2 * SIDE)
    save(tmp_path / "a.png", 0)
    with pytest.warns(UserWarning, match="1 of 2 pictures .* 16x8"):
        given, n, names = read_given(FACES, {"hair": "long01", "source": tmp_path}, None)
    assert n == 2 and names == ["a", "b"] and given["hair"].tolist() == [2, 2]
    assert to_uint8(given["source"])[:, :, 0, 0].tolist() == [[0] * 3, [128] * 3]
    assert read_given(FACES, {"source": tmp_path / "a.png"}, None)[1:] == (1, ["a"])
    with pytest.raises(BowerbirdError, match="did you mean 'short01'"):
        read_given(FACES, {"hair": "shrt01"}, 1)
    with pytest.raises(BowerbirdError, match="did you mean 'hair'"):
        read_given(FACES, {"hare": "short01"}, 1)
    with pytest.raises(BowerbirdError, match="3 values|2 values"):
        read_given(FACES, {"hair": ["short01"] * 3, "source": tmp_path}, None)
    with pytest.raises(BowerbirdError, match="does not exist"):
        read_given(FACES, {"source": tmp_path / "none.png"}, None)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(BowerbirdError, match="broken"):
        read_given(FACES, {"source": tmp_path / "broken.png"}, None)


TINY = {"train.steps": 4, "train.batch_size": 8, "train.device": "cpu", "train.threads": 1, "train.sample_every": 0}


def test_a_translator_is_trained_resumed_asked_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for i, (source, target) in enumerate(LEVELS):
        save(tmp_path / "pairs" / "source" / f"{i}.png", source)
        save(tmp_path / "pairs" / "target" / f"{i}.png", target)
    net = '[model.net]\nname = "unet"\nchannels = 8\nmultipliers = [1]\nblocks = 1\nattention = []\n'
    toml = '[model]\nfamily = "translation"\n' + net
    (tmp_path / "recipe.toml").write_text(toml)
    run = api.train(tmp_path / "recipe.toml", tmp_path / "run", data=str(tmp_path / "pairs"), quiet=True, **TINY)
    assert (
        cli.main(["sample", str(run), "--source", str(tmp_path / "pairs" / "source"), "--out", str(tmp_path / "out")])
        == 0
    )
    made = sorted(path.stem for path in (tmp_path / "out").glob("*.png"))
    assert made == sorted([*map(str, range(len(LEVELS))), "sheet"])
    capsys.readouterr()
    assert cli.main(["sample", str(run)]) == 2
    assert "--source" in capsys.readouterr().err
    assert cli.main(["sample", str(run), "--prompt", "x"]) == 2
    assert "--prompt does not apply" in capsys.readouterr().err
    found = {m.name for m in api.measure(run)[str(run)]}
    assert {"l1", "feature_distance"} <= found and "frechet_distance" not in found
    assert (run / "samples" / "step-00000004.png").is_file()


def test_attributes_are_asked_for_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    toml = '[model]\nfamily = "flow"\nsample_steps = 2\n[model.net]\nname = "mlp"\nhidden = [16]\n'
    (tmp_path / "recipe.toml").write_text(toml)
    settings = TINY | {"data.given": ["hair", "glasses"], "data.size": 8}
    run = api.train(tmp_path / "recipe.toml", tmp_path / "run", data="pixel-faces", quiet=True, **settings)
    asked = ["--given", "hair=short09", "glasses=dark01", "-n", "3", "--out", str(tmp_path / "out")]
    assert cli.main(["sample", str(run), *asked]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert [(row["hair"], row["glasses"]) for row in rows] == [("short09", "dark01")] * 3
    capsys.readouterr()
    assert cli.main(["sample", str(run), "--given", "hair=shirt09"]) == 2
    assert "did you mean 'short09'" in capsys.readouterr().err
    four, sixteen = (api.generate(run, n, seed=3) for n in (4, 16))
    assert torch.allclose(four.x, sixteen.x[:4], atol=1e-5) and torch.equal(
        four.given["hair"], sixteen.given["hair"][:4]
    )
    assert four[0].shape == (8, 8, 3) and four._repr_html_().startswith("<img") and four._repr_png_()[:4] == b"\x89PNG"


def test_two_threads_do_not_disturb_one_another(tmp_path: Path) -> None:
    toml = '[model]\nfamily = "diffusion"\nsampler = "ddpm"\n[model.net]\nname = "mlp"\nhidden = [16]\n'
    (tmp_path / "recipe.toml").write_text(toml)
    run = api.train(tmp_path / "recipe.toml", tmp_path / "run", data="digits", quiet=True, **TINY | {"data.size": 8})
    model = api.load(run)

    def drawn(seed: int) -> torch.Tensor:
        return draw(model, 12, seed=seed, options={"steps": 8}).x

    torch.manual_seed(5)
    before, alone = torch.get_rng_state(), [drawn(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(drawn, range(4)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.equal(torch.get_rng_state(), before) and not torch.equal(alone[0], alone[1])


def test_too_few_values_are_refused():
    spec = Spec("image", Tensors((1, 4, 4)), {"label": Classes(("a", "b", "c"), (1, 1, 1))})
    with pytest.raises(BowerbirdError, match="2 values are given for 3 samples"):
        read_given(spec, {"label": ["a", "b"]}, 3)
    assert read_given(spec, {"label": "b"}, 3)[0]["label"].tolist() == [1, 1, 1]


def test_a_prompt_for_music_is_refused():
    tokens = Tokens(20, 8, 0, 1, 2)
    spec = Spec("music", tokens, {"prompt": tokens})
    with pytest.raises(BowerbirdError, match="--prompt does not apply: this run makes music"):
        read_given(spec, {"prompt": "hello"}, 1)
