"""Exports as such: nothing is placed that was not compared, what is placed has its card, and says what it is."""

import json
from pathlib import Path

import pytest
import torch
from made import LABELLED, made

from bowerbird import api, cli, registry
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.export import export_model, prove
from bowerbird.export.target import EXAMPLE_ROWS, Parity, Target, Trained, compared, compared_pieces, examples
from bowerbird.models.gan import GANConfig
from bowerbird.models.local import LocalConfig
from bowerbird.models.vae import VAEConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.spec import Classes, Tensors, Tokens

SMALL = MLPConfig((16,))


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("runs") / "vae", VAEConfig(SMALL, n_latent=4))


class Copy(Target):
    """A format of one file, whose functions a test chooses."""

    runtime = "nothing"
    file = "copy.bin"
    wrong = staticmethod(lambda x: x)

    def write(self, trained, folder):
        (folder / self.file).write_bytes(b"weights")

    def compare(self, trained, folder):
        assert (folder / self.file).read_bytes() == b"weights"
        theirs = {name: lambda *x, f=piece.module: self.wrong(f(*x)) for name, piece in trained.parts.items()}
        return compared_pieces(trained, theirs)


def frozen(y: torch.Tensor) -> torch.Tensor:
    if len(y) != EXAMPLE_ROWS:
        raise ValueError(f"Got: {len(y)} Expected: {EXAMPLE_ROWS}")
    return y


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (frozen, "does not run with 1 rows"),
        (lambda y: y[:1], r"returns the shape \(1, .*for 5 rows"),
        (lambda y: y + 0.01, "differs from the run's model by 0.01"),
        (lambda y: y * torch.nan, "differs"),
    ],
)
def test_what_is_not_equal_leaves_nothing_behind(tmp_path, vae, wrong, said):
    target = Copy()
    target.wrong = wrong
    with pytest.raises(RunFailed, match=said) as caught:
        prove(Trained(vae), target, tmp_path / "out", "copy")
    assert list(tmp_path.iterdir()) == [] and "\n" not in str(caught.value)


def test_an_export_takes_its_place_beside_what_is_there(tmp_path, vae):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(BowerbirdError, match=r"mine\.txt"):
        prove(Trained(vae), Copy(), tmp_path / "full", "copy")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]
    parity = prove(Trained(vae), Copy(), tmp_path / "out", "copy")
    assert [(one.what, one.batches, one.difference) for one in parity] == [
        ("decoder", (1, 5), 0.0),
        ("encoder", (1, 5), 0.0),
    ]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"copy.bin", "README.md"}
    prove(Trained(vae), Copy(), tmp_path / "out", "copy")  # an earlier export is replaced
    prove(Trained(vae), Copy(), tmp_path / "one.bin", "copy")
    assert {p.name for p in tmp_path.iterdir()} == {"full", "out", "one.bin", "one.md"}


def test_examples_have_the_shapes_of_their_fields():
    fields = {"x": Tensors((2, 3)), "t": Tensors((), None), "y": Classes(("a", "b")), "words": Tokens(9, 7, 0, 1, 2)}
    x, t, y, words = examples(fields, 5)
    assert (x.shape, t.shape, y.shape, words.shape) == ((5, 2, 3), (5,), (5,), (5, 7))
    assert float(x.abs().max()) <= 1 and int(y.max()) <= 2 and int(words.max()) < 9
    assert examples(fields, 1)[3].shape == (1, 3)


def test_two_batch_sizes_are_compared_and_neither_is_the_examples():
    seen = []
    parity = compared("f", lambda x: seen.append(len(x)) or x, lambda x: x, lambda n: (torch.ones(n),))
    assert parity == Parity("f", (1, 5), 0.0, 1.0) and seen == [1, 5] and EXAMPLE_ROWS not in seen


def test_unknown_formats_and_wrong_places(tmp_path, vae, capsys):
    assert registry.exports.names() == ["diffusers", "gguf", "html", "huggingface", "onnx", "safetensors"]
    with pytest.raises(BowerbirdError, match="no export format 'onx'; did you mean 'onnx'"):
        export_model(vae, tmp_path / "out", "onx")
    (tmp_path / "file").write_text("")
    with pytest.raises(BowerbirdError, match="is a file, but the format safetensors writes a folder"):
        export_model(vae, tmp_path / "file", "safetensors")
    with pytest.raises(BowerbirdError, match="does not support the precision f16; it supports f32"):
        export_model(vae, tmp_path / "out", "safetensors", "f16")
    assert cli.main(["export", str(tmp_path / "none"), "--to", "safetensors"]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_family_that_stays_says_why_and_where_to_go(tmp_path):
    run = made(tmp_path / "local", LocalConfig(n_hidden=8), LABELLED.alone())
    for to in ("onnx", "html", "huggingface", "diffusers"):
        with pytest.raises(BowerbirdError, match="last bit; compress with bowerbird edit RUN compress"):
            export_model(run, tmp_path / to, to)
    assert export_model(run, tmp_path / "alone", "safetensors").is_dir() and not (tmp_path / "onnx").exists()


def test_safetensors_are_a_run_of_their_own_with_its_card(tmp_path):
    run = made(tmp_path / "run", GANConfig(SMALL, n_latent=4), data=str(tmp_path / "secret" / "photos"))
    measured = {
        "name": "fid",
        "value": 12.5,
        "unit": "1",
        "stderr": 0.5,
        "protocol": {"n_generated": 100, "split": "test"},
    }
    (run / "measurements.json").write_text(json.dumps({"measurements": [measured]}))
    out = api.export(run, "safetensors", tmp_path / "out")
    again, first = api.load(out, "cpu"), api.load(run, "cpu")
    assert all(torch.equal(w, first.state_dict()[name]) for name, w in again.state_dict().items())
    assert not any(str(tmp_path).encode() in file.read_bytes() for file in out.iterdir())
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n") and "pipeline_tag: unconditional-image-generation" in card
    assert "| fid | 12.5 ± 0.5 | 1 | n_generated 100, split test |" in card
    assert "| generator | 1, 5 | 0.0e+00 |" in card and "Trained on **photos**" in card


def test_a_card_names_data_licence_and_fingerprint(tmp_path, tiny):
    run = api.train("gan", tmp_path / "run", quiet=True, **{"train.steps": 1, "train.batch_size": 8})
    card = (api.export(run, "safetensors") / "README.md").read_text()
    fingerprint = json.loads((run / "environment.json").read_text())["fingerprint"]
    assert "license: cc-by-sa-3.0" in card and f"`{fingerprint}`" in card and "Yann LeCun" in card
    energy = card.partition("| Energy |")[2].splitlines()[0]
    assert "an estimate" in energy or "counters" in energy


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path, vae):
    (tmp_path / "file").write_text("")
    with pytest.raises(BowerbirdError, match="cannot be written to"):
        export_model(vae, tmp_path / "file" / "out", "safetensors")
