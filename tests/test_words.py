"""Pictures from words: wordings of a caption, combinations that are held out, unknown words, and the matcher."""

import json
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import bowerbird
from bowerbird import config
from bowerbird.config import Data, Text
from bowerbird.data import split, tokenizers
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import Captions, Context, Counterparts
from bowerbird.measuring.engine import measure_context
from bowerbird.media import open_data
from bowerbird.media.image.sheets import samples_sheet
from bowerbird.metrics.matcher import Captioned, Matcher, fit_matcher, nearest_captions, retrieved
from bowerbird.metrics.measurement import Protocol
from bowerbird.models.base import Batch
from bowerbird.models.flow import FlowConfig, FlowOptions
from bowerbird.models.latent import LatentConfig
from bowerbird.nets.conditioning import dropped, nothing, requested, unsaid
from bowerbird.nets.dit import DiTConfig
from bowerbird.spec import Classes, Spec, Tensors, Tokens

COLOURS = {"red": "红", "green": "绿", "blue": "蓝", "white": "白", "black": "黑", "grey": "灰"}
SHAPES = {"square": "方块", "bar": "长条", "dot": "点", "cross": "十字"}
STYLES = ("flat", "soft", "thin", "wide")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 things in four styles, each said in English, in Chinese and, but for one, by a tag."""
    folder, rows = tmp_path_factory.mktemp("drawn"), []
    things = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    for i, (colour, shape) in enumerate(things):
        for k, style in enumerate(STYLES):
            name = f"{colour}-{shape}-{style}.png"
            Image.fromarray(np.full((8, 8, 3), (10 * i, 60 * k, i + k), np.uint8)).save(folder / name)
            tags = "" if i == 0 else f"{shape}, thing"
            rows.append({"file_name": name, "style": style, "caption": f"{colour.title()} {shape}",
                         "zh": f"{COLOURS[colour]}色{SHAPES[shape]}", "tags": tags})  # fmt: skip
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def words_of(folder: Path, **changed: Any) -> Data:
    settings: dict[str, Any] = {
        "given": ("style", "caption"), "wordings": ("caption", "zh", "tags"), "held_out": ("caption", "style"),
        "text": Text(tokenizer="word"),
    }  # fmt: skip
    return Data(str(folder), **settings | changed)


# ------------------------------------------------------------------------------------------------ held-out combinations


def test_every_value_of_the_first_column_stays_in_training_and_shares_are_as_stated() -> None:
    thing, style = (column.flatten().astype(str) for column in np.mgrid[:3000, :4])
    where = split.by_combination(thing, style)
    assert set(thing[where == "train"]) == set(thing)
    assert max(Counter(thing[where != "train"]).values()) == 1
    for name, share in (("val", 1 / 20), ("test", 2 / 20)):
        assert abs((where == name).mean() - share) < 5 * (share / len(thing)) ** 0.5
    assert set(style[where == "test"]) == set("0123")
    order = np.random.default_rng(0).permutation(len(thing))
    assert (split.by_combination(thing[order], style[order]) == where[order]).all()


def test_equal_combinations_lie_in_one_split_and_a_thing_seen_in_one_way_is_trained_on() -> None:
    thing = np.array([f"{i}" for i in range(500)]).repeat(4)
    style = np.tile(["a", "a", "b", "b"], 500)
    where = split.by_combination(thing, style).reshape(500, 2, 2)
    assert (where[:, :, 0] == where[:, :, 1]).all() and (where != "train").any()
    assert (split.by_combination(thing, np.full(2000, "a")) == "train").all()


def test_data_hold_out_captions_in_a_style(drawn: Path) -> None:
    data = open_data(words_of(drawn))
    tokenizer = Tokenizer.from_spec(data.spec)

    def pairs(name: str) -> set[tuple[str, int]]:
        given = getattr(data, name).given
        return {(tokenizer.decode(c.tolist()), int(s)) for c, s in zip(given["caption"], given["style"], strict=True)}

    train, test = pairs("train"), pairs("test") | pairs("val")
    assert not train & test and {caption for caption, _ in test} <= {caption for caption, _ in train}
    assert len(train) + len(test) == 96 and len(test) > 5
    assert "combinations of caption and style" in str(data.preprocessing["split"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"held_out": ("caption",)}, "two columns or more"),
        ({"held_out": ("caption", "stile")}, "did you mean 'style'"),
        ({"wordings": ("caption", "tagz")}, "did you mean 'tags'"),
        ({"given": ("style",)}, "names 0 of them"),
        ({"given": ("caption", "zh")}, "names 2 of them"),
    ],
)
def test_what_the_data_cannot_be(drawn: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BowerbirdError, match=said):
        open_data(words_of(drawn, **changed))


# --------------------------------------------------------------------------------------------------- words and wordings


def test_words_are_small_letters_without_punctuation_and_a_han_character_is_one() -> None:
    tokenizer = tokenizers.chosen("word", ["Red apple!", "猫头鹰", "3D ✓"], ["o’clock"], 9, tokenizers.SPECIALS)
    for text, words in {
        "RED, apple": "red apple",
        "头鹰": "头鹰",
        "red 猫": "red猫",
        "ａｐｐｌｅ ✓ 3d": "apple ✓ 3d",
    }.items():
        assert tokenizer.decode(tokenizer.encode(text)) == words
    assert len(tokenizer.encode("猫头鹰")) == 3 and tokenizer.encode("…") == []
    assert tokenizer.vocab_size == 3 + len({"red", "apple", "猫", "头", "鹰", "3d", "✓", "o", "clock"})
    again = Tokenizer.from_json(tokenizer.to_json())
    assert again.encode("clock") == tokenizer.encode("clock")
    for one in (tokenizer, again):
        with pytest.raises(BowerbirdError, match=r"no words 'appel' \(did you mean 'apple'\?\), '犬'; use others"):
            one.encode("red appel 犬")


def test_batches_of_training_draw_a_wording_and_validation_reads_the_caption(drawn: Path) -> None:
    data = open_data(words_of(drawn))
    tokenizer = Tokenizer.from_spec(data.spec)
    torch.manual_seed(0)
    rows = torch.zeros(300, dtype=torch.int64)
    seen = Counter(tokenizer.decode(row.tolist()) for row in data.train.batch(rows)["given"]["caption"])
    caption = tokenizer.decode(data.train.given["caption"][0].tolist())
    assert len(seen) == 3 and caption in seen and min(seen.values()) > 60
    val = data.val.batch(torch.arange(len(data.val)))["given"]["caption"]
    assert torch.equal(val, data.val.given["caption"])


def test_an_empty_wording_gives_way_to_the_caption(drawn: Path) -> None:
    data = open_data(words_of(drawn))
    tokenizer = Tokenizer.from_spec(data.spec)
    said = {tuple(tokenizer.decode(way.tolist()) for way in ways) for ways in data.train.wordings["caption"]}
    assert ("red square", "红色方块", "red square") in said and ("red bar", "红色长条", "bar thing") in said


# ---------------------------------------------------------------------------------------------- a part of what is given


FIELDS = {"style": Classes(STYLES, (1, 1, 1, 1)), "caption": Tokens(9, 8, 0, 1, 2)}


def test_each_field_is_hidden_by_itself_and_all_together() -> None:
    torch.manual_seed(0)
    given = {"style": torch.ones(4000, dtype=torch.int64), "caption": torch.full((4000, 3), 5)}
    seen = dropped(given, FIELDS, 0.1, 0.2)
    no_style, no_caption = seen["style"] == 4, (seen["caption"] == 2).all(1)
    assert abs(float(no_style.double().mean()) - 0.28) < 0.03
    assert abs(float((no_style & no_caption).double().mean()) - (0.1 + 0.9 * 0.04)) < 0.03
    assert abs(float((no_style & ~no_caption).double().mean()) - 0.9 * 0.16) < 0.03


def test_what_is_left_out_is_drawn_unless_the_model_can_do_without() -> None:
    device = torch.device("cpu")
    said = {"caption": torch.full((50, 2), 5)}
    drawn_style = requested(50, said, FIELDS, Draws(0), device)["style"]
    assert set(drawn_style.tolist()) == {0, 1, 2, 3}
    fields = unsaid(FIELDS)
    assert unsaid(fields) == fields and fields["caption"] == FIELDS["caption"]
    style = requested(50, said, fields, Draws(0), device)["style"]
    assert torch.equal(style, nothing(FIELDS["style"], 50, device))


def test_without_anything_given_there_is_nothing_to_exaggerate() -> None:
    spec = Spec("image", Tensors((3, 8, 8)), {"caption": FIELDS["caption"]})
    net = DiTConfig(n_layer=1, n_head=1, n_embd=8, patch=4)
    model = FlowConfig(net=net, sample_steps=2, guidance=3.0).build(spec)
    plain = model.sample(2, options=FlowOptions(guidance=1.0), generator=Draws(0))
    assert torch.equal(model.sample(2, generator=Draws(0)), plain)


# -------------------------------------------------------------------------------------------------- answering with data


class Oracle(torch.nn.Module):
    """The network that knows the answer."""

    def __init__(self, x: Tensor):
        super().__init__()
        self.x, self.weight = x, torch.nn.Parameter(torch.zeros(()))

    def forward(self, x_t: Tensor, t: Tensor, given: Any = None) -> Tensor:
        return self.x.expand_as(x_t) + self.weight


def flow(prediction: str) -> Any:
    net = DiTConfig(n_layer=1, n_head=1, n_embd=8, patch=4)
    return FlowConfig(net=net, prediction=prediction, sample_steps=4).build(Spec("image", Tensors((3, 8, 8))))  # type: ignore[arg-type]


def test_a_network_that_answers_with_the_data_loses_nothing_and_samples_them() -> None:
    x = torch.rand(1, 3, 8, 8) * 2 - 1
    model = flow("x0")
    model.net = Oracle(x)
    assert float(next(model.losses(Batch(x.expand(64, -1, -1, -1)))).value.detach()) == 0
    assert torch.allclose(model.sample(3, options=FlowOptions(steps=4)), x.expand(3, -1, -1, -1), atol=1e-5)


@pytest.mark.parametrize("prediction", ["velocity", "x0"])
def test_an_export_combines_noise_and_answer_as_the_sampler_does(prediction: str) -> None:
    model, x_t = flow(prediction), torch.rand(2, 3, 8, 8)
    model.net = Oracle(torch.rand(1, 3, 8, 8))
    for t in (1.0, 0.3, 0.02):
        combined = model._combination(t)
        x0 = x_t - t * model._velocity({}, 1.0)(x_t, torch.full((2,), t))
        assert torch.allclose(combined["a"] * x_t + combined["b"] * model.net.x, x0, atol=1e-6)


def test_both_predictions_lose_the_same_where_they_say_the_same() -> None:
    """An error d of x_0 is one of d / t of the velocity."""
    torch.manual_seed(0)
    x, error = torch.rand(4096, 3, 8, 8) * 2 - 1, 0.1
    model = flow("x0")
    model.net = Oracle(torch.zeros(1))
    model.net.forward = lambda x_t, t, given=None: x + error  # type: ignore[method-assign]
    loss = float(next(model.losses(Batch(x))).value.detach())
    t = torch.linspace(0.5 / 4096, 1 - 0.5 / 4096, 4096, dtype=torch.float64).clamp(min=0.05)
    assert loss == pytest.approx(float((error**2 / t**2).mean()), rel=0.01)


# ---------------------------------------------------------------------------------------------------------- the matcher


def scenes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A bright colour channel in one half of a noisy picture; its words are tokens 0…2 and 3…4, pad is 5."""
    generator = torch.Generator().manual_seed(seed)
    colour, place = (torch.randint(k, (n,), generator=generator) for k in (3, 2))
    x = torch.randint(100, (n, 3, 16, 16), dtype=torch.uint8, generator=generator)
    for picture, c, p in zip(x, colour, place, strict=True):
        picture[c, slice(0, 8) if p == 0 else slice(8, 16)] += 100
    return x, torch.stack([colour, 3 + place, torch.full((n,), 5)], 1)


def small_fit(pairs: Captioned, vocab_size: int, pad: int) -> Matcher:
    return fit_matcher(pairs, vocab_size, pad, steps=60, batch=32)


def test_the_matcher_finds_the_caption_of_unseen_pictures_and_no_other() -> None:
    images, tokens = scenes(300, 0)
    before = torch.get_rng_state()
    matcher = small_fit(Captioned(images, tokens[:, None]), 6, 5)
    assert torch.equal(torch.get_rng_state(), before)
    unseen, asked = scenes(100, 1)
    assert float(retrieved(matcher, unseen, asked).mean()) > 0.95
    wrong = asked.clone()
    wrong[:, 0] = (asked[:, 0] + 1) % 3
    assert float(retrieved(matcher, unseen, wrong).mean()) < 0.05


def test_the_nearest_caption_shares_the_rarest_words() -> None:
    known = torch.tensor([[0, 1, 5], [0, 2, 5], [0, 3, 4]])
    asked = torch.tensor([[0, 2, 5, 5], [3, 5, 5, 5], [4, 1, 5, 5]])
    assert nearest_captions(asked, known, 6, 5).tolist() == [1, 2, 0]


def test_retrieval_stands_beside_the_truth_and_beside_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOWERBIRD_CACHE", str(tmp_path))
    monkeypatch.setattr("bowerbird.measuring.shipped.obedience.fit_matcher", small_fit)
    (training, known), (truth, asked) = scenes(300, 0), scenes(100, 1)
    made = torch.where((torch.arange(100) < 70)[:, None, None, None], truth, 255 - truth)
    copied = training[nearest_captions(asked, known, 6, 5)]
    pairs = Counterparts(made, truth, Protocol(fingerprint="ab"), copied)
    said = Captions(asked, Captioned(training, known[:, None]), Tokens(6, 3, 0, 1, 5))
    context = Context(Protocol(), {"counterparts": lambda _: pairs, "captions": lambda _: said})
    (found,) = measure_context(context, ["caption_retrieval"])
    beside = dict(found.protocol.parameters)
    assert found.value == pytest.approx(0.7, abs=0.05) and beside["of"] == 6
    assert float(beside["truth"]) > 0.95 and float(beside["source"]) > 0.95


# ----------------------------------------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def run(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = config.load("emoji-text")
    small = {
        "model.autoencoder.n_latent": 16,
        "model.autoencoder.net.channels": 8,
        "model.autoencoder.net.patch": 2,
        "model.prior.net.n_embd": 16,
        "model.prior.net.n_layer": 1,
        "model.prior.sample_steps": 2,
        "data.source": str(drawn),
        "data.given": ["style", "caption"],
        "data.wordings": ["caption", "zh", "tags"],
        "train.steps": 3,
        "train.warmup_steps": 0,
        "train.batch_size": 8,
        "train.threads": 1,
        "train.precision": "fp32",
    }
    folder, words = tmp_path_factory.mktemp("runs"), config.with_settings(recipe, small)
    assert isinstance(words.model, LatentConfig)
    bowerbird.train(replace(words, model=words.model.autoencoder), folder / "codes", quiet=True)
    return bowerbird.train(words, folder / "words", start=folder / "codes")


def test_a_caption_in_either_language_with_a_style(run: Path, tmp_path: Path) -> None:
    samples = bowerbird.generate(run, 2, given={"prompt": "Red bar", "style": "soft"})
    assert [row["caption"] for row in samples.rows] == ["red bar", "red bar"] and samples.rows[0]["style"] == "soft"
    chinese = bowerbird.generate(run, 1, given={"prompt": "红色长条"})
    assert chinese.rows[0]["caption"] == "红色长条" and "style" not in chinese.rows[0]
    other = bowerbird.generate(run, 1, given={"prompt": "blue dot", "style": "soft"})
    assert not torch.equal(samples.x[0], other.x[0])


def test_words_and_styles_that_a_run_does_not_know(run: Path) -> None:
    with pytest.raises(BowerbirdError, match=r"no word 'sqare' \(did you mean 'square'\?\)"):
        bowerbird.generate(run, 1, given={"prompt": "red sqare"})
    with pytest.raises(BowerbirdError, match="no style 'soff'; did you mean 'soft'"):
        bowerbird.generate(run, 1, given={"style": "soff"})
    with pytest.raises(BowerbirdError, match="The caption is empty"):
        bowerbird.generate(run, 1, given={"prompt": " … "})


def test_the_run_is_measured_beside_truth_and_copies(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOWERBIRD_CACHE", str(tmp_path))
    monkeypatch.setattr("bowerbird.measuring.shipped.obedience.fit_matcher", small_fit)
    found = {one.name: one for one in bowerbird.measure(run, metrics=["l1", "caption_retrieval"])[str(run)]}
    assert 0 < float(dict(found["l1"].protocol.parameters)["source"]) < found["l1"].value < 2
    assert {"of", "truth", "source"} <= dict(found["caption_retrieval"].protocol.parameters).keys()


def test_previews_show_the_truth_beside_each_sample(run: Path) -> None:
    samples = bowerbird.generate(run, 2, given={"prompt": ["red bar", "blue dot"]})
    truth = torch.ones_like(samples.x)
    plain = samples_sheet(samples.x, samples.given, samples.spec)
    beside = np.asarray(samples_sheet(samples.x, samples.given | {"truth": truth}, samples.spec))
    assert beside.shape[1] > 3 * plain.width // 2 and (beside[4:60, 70:126] == 255).all()


def test_the_server_takes_the_same_words_and_names_the_unknown(run: Path) -> None:
    from bowerbird.serve.app import served
    from bowerbird.serve.service import Engine

    def answer(address: str, body: dict[str, Any]) -> tuple[int, str]:
        asked = urllib.request.Request(f"{address}/v1/images/generations", json.dumps(body).encode(),
                                       {"content-type": "application/json"})  # fmt: skip
        try:
            with urllib.request.urlopen(asked, timeout=60) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    with served(Engine({"words": run})) as address:
        assert answer(address, {"prompt": "红色长条", "given": {"style": "soft"}})[0] == 200
        status, said = answer(address, {"prompt": "red sqare"})
        assert status == 400 and "did you mean 'square'" in said
        status, said = answer(address, {"prompt": "red bar", "given": {"style": "soff"}})
        assert status == 400 and "did you mean 'soft'" in said
