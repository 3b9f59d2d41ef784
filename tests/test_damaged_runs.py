"""Files of a run that something has damaged: noticed, told in one sentence, never an internal error."""

import json
import os
import random
import shutil
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch

from bowerbird import api, config
from bowerbird.data.tensorfile import Damaged, read_header, read_tensors, verify, write_tensors
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.models.autoregressive import AutoregressiveConfig
from bowerbird.models.vae import VAEConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.report.run import write_run_report
from bowerbird.studio.shelf import Shelf
from bowerbird.training.rundir import RunDir, load_model
from bowerbird.training.trainer import resume, train

FILES = (
    "run.toml", "environment.json", "metrics.jsonl", "signals.jsonl", "diagnosis.json", "model.safetensors",
    "best.safetensors", "tokenizer.json", "measurements.json", "state/state.safetensors", "samples/step-00000002.png",
)  # fmt: skip
MUTATIONS = int(os.environ.get("BOWERBIRD_FUZZ", "11")) // len(FILES)
"""Mutations of each file of a run; ``make fuzz`` does 2,000 in all."""


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with every kind of file."""
    train_config = config.Train(
        steps=4, batch_size=4, threads=1, device="cpu", precision="fp32", checkpoint_every=2, log_every=1,
        sample_every=2, evaluate_every=2, evaluate_samples=16, evaluate_share=100.0,
    )  # fmt: skip
    run = config.Run(VAEConfig(net=MLPConfig(hidden=(8,)), n_latent=2), config.Data(str(tiny)), train_config)
    folder = tmp_path_factory.mktemp("whole") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        api.train(run, folder, quiet=True)
    assert (folder / "best.safetensors").is_file() and (folder / "state" / "previous.safetensors").is_file()
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def flipped(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


# ---------------------------------------------------------------------------------------- files of tensors


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.arange(float(i)) for i in range(5)}
    header = {"step": 3, "score": 0.1, "spec": {"b": 1, "a": "ü"}}
    backwards = dict(reversed(header.items()))
    write_tensors(tmp_path / "a", tensors, header)
    write_tensors(tmp_path / "b", dict(reversed(tensors.items())), backwards)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_header(tmp_path / "a") == header
    found = read_tensors(tmp_path / "a")
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_every_bit_of_a_file_of_tensors_counts(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_tensors(path, {"x": torch.arange(7.0), "y": torch.ones(2, 3)}, {"step": 1})
    original = path.read_bytes()
    for bit in range(8 * len(original)):
        flipped(path, bit)
        with pytest.raises(Damaged, match="is damaged"):
            verify(path)
        path.write_bytes(original)
    verify(path)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 40, 200])
def test_a_file_that_was_cut_short_is_damaged(kept: int, tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", {"x": torch.arange(100.0)}, {"step": 1})
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:kept])
    with pytest.raises(Damaged):
        read_tensors(tmp_path / "a")


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "a", {"format": "pt"})
    assert read_header(tmp_path / "a") == {} and torch.equal(read_tensors(tmp_path / "a")["x"], torch.ones(2))


# ---------------------------------------------------------------------------------------- two generations


def test_every_flip_in_every_file_of_weights_is_noticed(run: Path) -> None:
    rng = random.Random(0)
    files = [*run.glob("*.safetensors"), *(run / "state").glob("*.safetensors")]
    assert {file.name for file in files} >= {"model.safetensors", "best.safetensors", "state.safetensors"}
    for file in files:
        original = file.read_bytes()
        for _ in range(8 * MUTATIONS):
            flipped(file, rng.randrange(8 * len(original)))
            with pytest.raises(Damaged):
                verify(file)
            file.write_bytes(original)


def test_a_damaged_state_falls_back_to_the_one_before(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunDir(run)
    data = open_data(folder.config().data)
    end = {name: value.clone() for name, value in folder.load_state().items()}  # else they are the file's own bytes
    flipped(folder.state_file, 8 * (folder.state_file.stat().st_size - 3))
    saved = folder.saved_state()
    assert saved is not None and saved.counters["step"] == 2 and "previous.safetensors" in saved.note
    assert resume(run, data).step == 4
    said = capsys.readouterr().err
    assert "state.safetensors is damaged: its content does not match its checksum. Continuing from" in said
    found = folder.load_state()
    assert all(torch.equal(value, found[name]) for name, value in end.items())
    assert [row["step"] for row in folder.metrics()] == [1, 2, 3, 4]


def test_two_damaged_states_are_one_sentence(run: Path) -> None:
    folder = RunDir(run)
    for file in (folder.state_file, folder.previous_file):
        flipped(file, 8 * (file.stat().st_size - 3))
    with pytest.raises(BowerbirdError, match=r"No intact state is left.*--start"):
        resume(run, open_data(folder.config().data), quiet=True)


@pytest.mark.parametrize("text", ["", "{}", None])
def test_a_tokenizer_of_another_run_is_not_used(text: str | None, tmp_path: Path) -> None:
    letters = config.Data("tang-5", text=config.Text(tokenizer="char", context=16))
    net = TransformerConfig(n_layer=1, n_head=2, n_embd=16)
    training = config.Train(steps=2, batch_size=4, threads=1, device="cpu", sample_every=0)
    train(
        config.Run(AutoregressiveConfig(net=net), letters, training), tmp_path / "run", open_data(letters), quiet=True
    )
    assert api.sample(tmp_path / "run", 1)
    file = tmp_path / "run" / "tokenizer.json"
    file.unlink() if text is None else file.write_text(text)
    said = "is missing" if text is None else "is not the one that the model was trained with"
    with pytest.raises(BowerbirdError, match=f"tokenizer.json {said}"):
        api.sample(tmp_path / "run", 1)


def test_a_kill_between_the_two_renames_leaves_the_state_before(run: Path) -> None:
    folder = RunDir(run)
    folder.state_file.rename(folder.state_file.with_name("next.safetensors"))
    assert folder.status()["step"] == 2
    assert resume(run, open_data(folder.config().data), quiet=True).step == 4


def test_weights_that_are_a_git_lfs_pointer_are_named(run: Path) -> None:
    (run / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269\n")
    with pytest.raises(BowerbirdError, match="model.safetensors is a Git LFS pointer, .* git lfs pull"):
        api.sample(run, 1)


def test_damaged_weights_are_one_sentence(run: Path) -> None:
    flipped(run / "model.safetensors", 8 * ((run / "model.safetensors").stat().st_size - 3))
    with pytest.raises(BowerbirdError, match="model.safetensors is damaged"):
        load_model(run)
    with pytest.raises(BowerbirdError, match="model.safetensors is damaged"):
        api.sample(run, n=1)


# ---------------------------------------------------------------------------------------- mutations of every file


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Bits flipped, bytes cut out, doubled or replaced; in JSON and TOML also values of another type."""
    kind = rng.randrange(7)
    at, length = rng.randrange(len(content) + 1), rng.choice((1, 2, 8, 60))
    strange = rng.choice(
        (b"\xff\xfe", b"null", b"-1", b"1e999", b"[]", b"{}", b'""', b"true", b"\0", b"9" * 30, b'"\\u0000"')
    )
    match kind:
        case 0:
            return (
                content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
                if at < len(content)
                else b""
            )
        case 1:
            return content[:at]
        case 2:
            return content[:at] + content[at + length :]
        case 3:
            return content[:at] + strange + content[at:]
        case 4:
            return content[:at] + strange + content[at + length :]
        case _:
            return with_another_value(content, strange, rng)


def with_another_value(content: bytes, strange: bytes, rng: random.Random) -> bytes:
    """The value after a colon or an equals sign is another."""
    places = [i for i, byte in enumerate(content[:4000]) if byte in b":="]
    if not places:
        return strange
    start = rng.choice(places) + 1
    end = next((i for i in range(start, len(content)) if content[i] in b",}\n"), len(content))
    return content[:start] + b" " + strange + content[end:]


def used(folder: Path) -> None:
    """Everything that reads a run folder; each may refuse with a sentence."""
    data = None

    def resumed() -> None:
        nonlocal data
        data = open_data(RunDir.open(folder).config().data)
        resume(folder, data, quiet=True)

    for act in (
        lambda: load_model(folder),
        lambda: load_model(folder, best=True),
        lambda: api.options_of(folder),
        lambda: api.diagnose(folder),
        lambda: write_run_report(folder),
        resumed,
    ):
        try:
            act()
        except BowerbirdError as error:
            assert str(error) and "\n" not in str(error)[:-1], error


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")
def test_mutations_are_never_an_internal_error(name: str, run: Path) -> None:
    path, rng = run / name, random.Random(name)
    if name == "measurements.json":
        protocol = {"n_generated": 5, "n_reference": 7}
        path.write_text(json.dumps({"measurements": [{"name": "kid", "value": 1.0, "protocol": protocol}]}))
    original = path.read_bytes() if path.is_file() else b'{"model": {"vocab": {"a": 1}}}'
    kept = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    for i in range(MUTATIONS):
        change = mutated(original, rng)
        path.write_bytes(change)
        try:
            used(run)
        except BaseException:
            print(f"mutation {i} of {name}: {change[:2000]!r}")
            raise
        for file, content in kept.items():
            file.write_bytes(content)


@pytest.mark.parametrize(
    "change", ["[model]\nfamily = 9", "model = 7", "data = []\ntitle = {}\n[model]", "[train]\nsteps = 'x'"]
)
@pytest.mark.filterwarnings("ignore")
def test_settings_of_another_type_are_never_an_internal_error(change: str, run: Path) -> None:
    (run / "run.toml").write_text(change)
    used(run)
    assert Shelf(run.parent, {}).get(run.name).family in ("", "9")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")
def test_missing_files_are_never_an_internal_error(name: str, run: Path) -> None:
    (run / name).unlink(missing_ok=True)
    used(run)


def test_lines_that_are_no_rows_are_left_out(run: Path) -> None:
    lines = [b'{"step": 1, "model/loss": 2.0, "lr": "high"}', b"[1, 2]", b"7", b'{"step": "1"}', b'{"step": true}',
             b"\xff\xfe", b'{"a": 1}', b'{"step": -1}', b'{"step": 2, "model/loss": 1.0}', b'{"step": 3']  # fmt: skip
    (run / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert RunDir(run).metrics() == [{"step": 1, "model/loss": 2.0}, {"step": 2, "model/loss": 1.0}]
    used(run)
