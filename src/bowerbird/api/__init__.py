"""The verbs of Bowerbird: the only door for the command line, the server and notebooks.

import bowerbird
run = bowerbird.train("flow", data="photos", budget="10m")
bowerbird.sample(run, n=64)
bowerbird.measure(run)
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bowerbird import config, machine, registry, trust
from bowerbird.api.judging import compare, diagnose, measure, opened_again, self_test
from bowerbird.api.programs import ask, conversation, mcp, read
from bowerbird.data.catalogue import RECORDS
from bowerbird.data.fetch import locate
from bowerbird.diagnosis import Watch
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.generating import Samples, previewer, require_own
from bowerbird.generating import generate as generate_samples
from bowerbird.measuring.evaluating import evaluator
from bowerbird.media import open_data
from bowerbird.media.giving import read_given
from bowerbird.media.medium import medium
from bowerbird.models.base import GenerativeModel, Streams, options_from
from bowerbird.provenance.labelling import Labeller
from bowerbird.provenance.origins import origin
from bowerbird.provenance.signing import identity
from bowerbird.shipped import folder_of, place_beside, runs
from bowerbird.spec import Field, Tensors
from bowerbird.training.budget import continued_budget, only, parse_budget
from bowerbird.training.rundir import (
    RunDir,
    explaining_full_disk,
    explaining_read_only,
    load_model,
    model_of,
    require_apart,
)
from bowerbird.training.trainer import is_finished
from bowerbird.training.trainer import resume as resume_run
from bowerbird.training.trainer import train as train_run

if TYPE_CHECKING:
    from bowerbird.diagnosis.sweep import Sweep
    from bowerbird.editing import Action, Edited
    from bowerbird.media.speech.saying import Utterance
    from bowerbird.media.text.completing import Conversation
    from bowerbird.provenance.verdict import Verdict
    from bowerbird.reading.check import check
    from bowerbird.reading.history.track import track

__all__ = [
    "actions_of",
    "ask",
    "chat",
    "check",
    "compare",
    "conversation",
    "diagnose",
    "edit",
    "export",
    "exports_of",
    "generate",
    "import_model",
    "info",
    "load",
    "mcp",
    "measure",
    "read",
    "resume",
    "sample",
    "say",
    "self_test",
    "stylise",
    "track",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    """``check`` and ``track`` are those of the reading room, which is entered when it is needed."""
    if name == "check":
        from bowerbird.reading.check import check

        return check
    if name == "track":
        from bowerbird.reading.history.track import track

        return track
    raise AttributeError(f"module 'bowerbird.api' has no attribute '{name}'")


def info() -> dict[str, Any]:
    """This machine: processor, memory, accelerator, and whether bf16 is faster here."""
    return machine.describe()


def train(
    run: config.Run | Path | str,
    out: Path | str | None = None,
    *,
    data: str | None = None,
    budget: str | None = None,
    start: Path | str | None = None,
    quiet: bool = False,
    allow_plugin: bool = False,
    **settings: Any,
) -> Path:
    """Trains a recipe into the folder ``out`` (default: a new one under runs/) and returns it.

    ``run`` is a recipe's name, a TOML file, or a ``config.Run``; ``data`` a built-in name or a path; ``budget`` the
    only budget, such as 60s or 500steps; ``start`` a run to take the initial weights from; further settings are named
    as on the command line: ``train("flow", data="photos", budget="60s", **{"train.lr": 1e-3})``.
    ``allow_plugin``: let the plugin run that the recipe names.  A start that fails leaves no folder.
    """
    run = run if isinstance(run, config.Run) else config.load(str(run), allow_plugin=allow_plugin)
    settings |= {key: str(value) for key, value in (("data.source", data), ("train.start", start)) if value is not None}
    if budget is not None:
        run = replace(run, train=replace(run.train, **only(parse_budget(budget))))
    run = _with_absolute_paths(config.with_settings(run, settings) if settings else run)
    require_apart(run.data.source, Path(out or "runs"))
    opened = open_data(run.data)
    with _folder(run, out) as folder, _reporting(folder):
        train_run(run, folder, opened, quiet=quiet, **_handed_in(run, opened))
    return folder


def _with_absolute_paths(run: config.Run) -> config.Run:
    """So that the run can be resumed from anywhere."""
    source, start = Path(run.data.source).expanduser(), folder_of(Path(run.train.start).expanduser())
    if source.exists():
        run = replace(run, data=replace(run.data, source=str(source.resolve())))
    return replace(run, train=replace(run.train, start=str(start.resolve()))) if run.train.start else run


def _handed_in(run: config.Run, data: Any) -> dict[str, Any]:
    """What the trainer is given besides the data: how to evaluate, to preview and to watch."""
    return {
        "evaluate": evaluator(data, run.train),
        "preview": previewer(data, run.train.seed),
        "observer": Watch(),
    }


def find_lr(run: config.Run, out: Path | str | None = None) -> "Sweep":
    """Tries growing learning rates for some steps, writes the curve into ``out`` (find-lr.png), suggests one."""
    from bowerbird.diagnosis.sweep import find_learning_rate, plot

    sweep = find_learning_rate(run)
    plot(sweep, Path(out or "runs") / "find-lr.png")
    return sweep


def resume(
    run_dir: Path | str,
    *,
    data: str | None = None,
    budget: str | None = None,
    device: str | None = None,
    accept_changes: bool = False,
    allow_plugin: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Path:
    """Continues a run exactly where its last checkpoint left it, and returns its folder.

    ``data`` is where the data have moved to; ``budget`` extends the training, also of a finished run: +10m and
    +500steps add to it, 500steps is the new total.  ``device`` and further settings, named as for ``train``, apply from
    here on.  BowerbirdError where run.toml or the data differ from those that it was trained with, unless
    ``accept_changes``.  Without a new budget, a finished run stays as it is.
    """
    rundir = RunDir.open(run_dir)
    folder = rundir.path
    if folder in runs().values():
        raise BowerbirdError(
            f"{run_dir} ships with Bowerbird and stays as it is; train a run of your own from its weights: "
            f"bowerbird train {rundir.run_toml} --start {run_dir}"
        )
    with trust.allowing(allow_plugin):
        there = rundir.config()
    settings |= {key: value for key, value in (("data.source", data), ("train.device", device)) if value is not None}
    run = config.with_settings(there, settings) if settings else there
    if budget is not None:
        run = replace(run, train=replace(run.train, **only(continued_budget(budget, rundir.status()))))
    run = _with_absolute_paths(run) if settings else run
    if run == there and is_finished(rundir):
        warnings.warn(
            f"{folder} is finished; to continue it, add for example --budget +500steps or --budget +10m.", stacklevel=2
        )
        _write_report(folder)
        return folder
    try:
        machine.resolve_device(run.train.device)
    except BowerbirdError as error:
        raise BowerbirdError(f"{error} To continue here: bowerbird resume {folder} --device auto") from error
    opened = opened_again(run.data, folder, f"bowerbird resume {folder} --data SRC")
    asked = None if run == there else run
    with _reporting(folder):
        resume_run(folder, opened, run=asked, accept_changes=accept_changes, quiet=quiet, **_handed_in(run, opened))
    return folder


@contextmanager
def _reporting(folder: Path) -> Iterator[None]:
    """Writes the report of a run that is finished, and of one that failed: what was found stands in it."""
    try:
        yield
    except RunFailed:
        if (folder / "run.toml").is_file():
            with suppress(OSError):  # where the disk is full, the failure itself is what has to be said
                _write_report(folder)
        raise
    with explaining_full_disk(folder):
        _write_report(folder)


def _write_report(folder: Path) -> None:
    from bowerbird.report.run import write_run_report  # draws with matplotlib, which training does without

    write_run_report(folder)


@contextmanager
def _folder(run: config.Run, out: Path | str | None) -> Iterator[Path]:
    """The folder that was asked for, or a new one, which goes again if no run comes of it."""
    if out is not None:
        yield Path(out)
        return
    folder = _new_folder(registry.families.name_of(type(run.model)))
    try:
        yield folder
    finally:
        with suppress(OSError):  # they are not empty
            folder.rmdir()
            folder.parent.rmdir()


def _new_folder(name: str) -> Path:
    """The next free runs/NAME-001; of two trainings that start together, each makes its own."""
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    taken = [int(m[1]) for p in runs.glob(f"{name}-*") if (m := re.fullmatch(rf"{re.escape(name)}-(\d+)", p.name))]
    for number in count(max(taken, default=0) + 1):
        with suppress(FileExistsError):
            (folder := runs / f"{name}-{number:03d}").mkdir()
            return folder
    raise AssertionError("unreachable")


def load(
    run_dir: Path | str, device: str = "auto", *, best: bool = False, allow_plugin: bool = False
) -> GenerativeModel:
    """The trained model of a run folder, or of a run that ships, with averaged weights, in eval mode.

    ``device``: auto (a GPU when there is one), cpu, cuda, cuda:1 or mps.  ``best``: the weights that scored best while
    training (train.evaluate_every) instead of the last ones.  ``allow_plugin``: let the plugin run that the run names.
    """
    machine.keep_freed_memory()
    with trust.allowing(allow_plugin):
        return load_model(run_dir, str(machine.resolve_device(device)), best=best)[0]


def options_of(run_dir: Path | str) -> type:
    """The sampling options of a run: a dataclass whose fields are what ``sample`` and ``measure`` take as options."""
    return model_of(run_dir).Options


def inputs_of(run_dir: Path | str) -> dict[str, Field]:
    """What a run makes its samples from, by name: classes, tokens or pictures."""
    return dict(model_of(run_dir).spec.given)


def generate(
    run_dir: Path | str,
    n: int | None = None,
    *,
    seed: int = 0,
    given: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    allow_plugin: bool = False,
) -> Samples:
    """Samples of a run in memory: arrays, texts or pieces, which a notebook shows and ``save`` writes.

    ``n`` None: 64 images, 8 texts or 1 piece of music, or one for each source.  ``given`` is what they are made from,
    by name, one value for all or a sequence: the name of a class, a text (``prompt``), a picture's file or array
    (``source``).  ``options`` are the family's own (steps, guidance, temperature …).  BowerbirdError for what the run
    does not take.  Sample i of a seed is the same for every n; another ``device`` changes the last bits only.
    """
    model = load(run_dir, device, allow_plugin=allow_plugin)
    chosen = options_from(model, options)
    tensors, n_given, names = read_given(model.spec, given or {}, n)
    if n_given is None:
        n_given = medium(model.spec.medium).n_samples
        tensors, _, names = read_given(model.spec, given or {}, n_given)
    return generate_samples(
        model,
        n_given,
        seed=seed,
        given=tensors,
        options=chosen,
        origin={"generated_by": str(run_dir)},
        names=names,
        labeller=labeller(run_dir),
    )


def labeller(run_dir: Path | str) -> Labeller:
    """Labels what a run makes, signed where ``provenance init`` made a key.

    Hand it to ``generating.generate``; ``record(text.encode())`` is the label of a text that no file holds.
    """
    return Labeller(origin(run_dir), identity())


def sample(
    run_dir: Path | str,
    n: int | None = None,
    *,
    seed: int = 0,
    label: str | None = None,
    prompt: str | None = None,
    source: Path | str | None = None,
    given: Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    labelled: bool = True,
    visible_mark: bool = False,
    allow_plugin: bool = False,
) -> Path:
    """Writes what ``generate`` returns into the folder ``out`` and returns it.

    Default for ``out``: inside the run; of a run that ships with Bowerbird, samples/NAME in the working directory.

    ``label``, ``prompt`` and ``source`` are short for entries of ``given``; each line of a prompt that is to be
    translated is a source of its own.  ``labelled`` False: the files do not say that they were generated.
    ``visible_mark``: every picture has the words "AI生成" in a corner, as sheets always have in a strip.
    """
    asked = dict(given or {}) | {
        name: value for name, value in (("label", label), ("prompt", prompt), ("source", source)) if value is not None
    }
    folder = Path(out) if out else place_beside(run_dir, "samples") / f"seed-{seed}"
    require_own(folder)
    with trust.allowing(allow_plugin):
        target = model_of(run_dir).spec.target
        each = (8 * target.dims, machine.BLOCK) if isinstance(target, Tensors) else (8, 8)
        machine.require_space(n or 1, *each, folder)
        if prompt is not None and "source" in model_of(run_dir).spec.given:
            asked["prompt"] = [line for line in prompt.splitlines() if line.strip()] or [""]
        samples = generate(run_dir, n, seed=seed, given=asked, options=options, device=device)
    if visible_mark:
        samples = replace(samples, labeller=replace(samples.labeller, visible=True))
    with explaining_full_disk(folder), explaining_read_only(folder):
        return samples.save(folder, labelled=labelled)


def say(
    run_dir: Path | str,
    text: str,
    *,
    seed: int = 0,
    given: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    vocoder: Path | str | None = None,
    device: str = "auto",
) -> "Utterance":
    """A text spoken by a run that was trained on recordings of words; ``save`` writes it.

    ``vocoder`` is a run that makes the waveforms of its spectrograms; without one their phase comes from an algorithm.

    Every word is a sample of its class, as long as the run makes it; what else the run is given (a speaker) is one for
    the whole text, drawn at random where ``given`` does not say it.  BowerbirdError names the words that it knows.
    """
    from bowerbird.media.speech.saying import Utterance, field_of, joined, numbers_of
    from bowerbird.media.speech.spectrogram import Mel

    spec = model_of(run_dir).spec
    if spec.medium != "speech":
        raise BowerbirdError(f"{run_dir} makes {spec.medium}, not speech; bowerbird sample draws from it.")
    field = field_of(spec.given, text)
    numbers, pauses = numbers_of(text, spec.given[field])
    if field in (given or {}):
        raise BowerbirdError(f"The text says the {field} already; leave out --given {field}=…")
    model = load(run_dir, device)
    voice, _, _ = read_given(model.spec, given or {}, 1)
    voice |= model.requested(1, voice | {field: torch.tensor(numbers[:1])}, Draws(seed))
    asked = {name: value.cpu().expand(len(numbers)) for name, value in voice.items()} | {field: torch.tensor(numbers)}
    made = generate_samples(model, len(numbers), seed=seed, given=asked, options=options_from(model, options))
    words = _vocoded(made, load(vocoder, device), vocoder) if vocoder is not None else list(made)
    mel, names = Mel.from_json(spec.codec), [spec.given[field].names[number] for number in numbers]
    about = {"text": text, field: names, **{k: v for k, v in made.rows[0].items() if k != field}}
    about |= {"generated_by": str(run_dir)} | ({"vocoder": str(vocoder)} if vocoder is not None else {})
    return Utterance(joined(words, pauses, mel.rate_hz), mel, about, labeller(run_dir))


def _vocoded(made: Samples, vocoder: GenerativeModel, name: Path | str) -> list[Any]:
    """The words of spectrograms as a vocoder makes them, each up to the silence that it ends in."""
    from bowerbird.media.speech.spectrogram import Mel, heard

    spec, mine = vocoder.spec, Mel.from_json(made.spec.codec)
    if spec.medium != "speech" or not isinstance(spec.given.get("spectrogram"), Tensors):
        raise BowerbirdError(f"{name} is no vocoder: it makes no waveforms of spectrograms; train one: recipe vocoder.")
    if Mel.from_json(spec.codec) != mine:
        raise BowerbirdError(
            f"The vocoder {name} was trained on spectrograms with other parameters than this run makes; train it on "
            "the same recordings with the same data.speech."
        )
    waveforms = generate_samples(vocoder, len(made), given={"spectrogram": made.x}).x
    return heard(waveforms, spec)


def edit(
    run_dir: Path | str,
    action: "str | Action",
    *,
    source: Any = None,
    mask: Any = None,
    n: int | None = None,
    seed: int = 0,
    given: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    allow_plugin: bool = False,
) -> "Edited":
    """What a run makes of pictures: completed, enlarged, varied, gone from one to the next; ``save`` writes it.

    ``action`` is the name of one (``actions_of`` lists those of a run) with its ``options``, or an object of
    ``bowerbird.editing``.  ``source``: a file, a folder, or uint8 arrays (h, w, c); ``mask``: a file, white or
    transparent where to make anew, or a bool array (h, w); ``given`` as for ``generate``.
    BowerbirdError for an action that the run cannot do, naming those that it can.
    """
    from bowerbird.editing import Request, action_from
    from bowerbird.editing import edit as edit_pictures

    wanted = action_from(action, options) if isinstance(action, str) else action
    model = load(run_dir, device, allow_plugin=allow_plugin)
    words = dict(given or {}) | {k: v for k, v in (("source", source), ("mask", mask)) if v is not None}
    return edit_pictures(wanted, Request(model, words, n, seed, {"generated_by": str(run_dir)}, labeller(run_dir)))


def actions_of(run_dir: Path | str) -> list[str]:
    """The actions of ``edit`` that a run can do."""
    from bowerbird import editing

    return editing.actions_of(model_of(run_dir))


def stylise(
    content: Path | str, style: Path | str, *, strength: float = 1.0, size: int = 256, iterations: int = 150
) -> Samples:
    """The content of one picture in the style of another, as one sample of the longest side ``size`` in pixels.

    ``strength`` above 1 keeps less of the content.  BowerbirdError for files that are no pictures, and without the
    weights efficientnet-lite0.
    """
    from bowerbird.editing.stylise import Styling
    from bowerbird.editing.stylise import stylise as stylise_picture

    styling = config.build(Styling, {"strength": strength, "size": size, "iterations": iterations}, "stylise")
    return stylise_picture(Path(content), Path(style), styling, Labeller({}, identity()))


def verify(file: Path | str, *, runs: Sequence[Path | str] = (), anchors: Sequence[Path | str] = ()) -> "Verdict":
    """What the labels, signatures and watermarks of a file say: "ours", "altered", "other" or "unknown".

    ``runs`` are folders of runs that may have made it, ``anchors`` certificates of others whose signatures are trusted.
    BowerbirdError for a file that cannot be read.
    """
    from bowerbird.provenance.verifying import verify as verify_file

    return verify_file(file, runs=runs, anchors=anchors)


def chat(
    run_dir: Path | str,
    *,
    system: str | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> "Conversation":
    """A conversation with a run; ``answer(words)`` yields the model's answer piece by piece."""
    from bowerbird.media.text.completing import Conversation

    model = load(run_dir, device)
    if not isinstance(model, Streams) or model.spec.medium != "text":
        what = "texts of pairs" if model.spec.medium == "text" else medium(model.spec.medium).modalities[0]
        raise BowerbirdError(f"{run_dir} cannot chat: it generates {what}. Run bowerbird sample {run_dir} instead.")
    chosen = options_from(model, options)

    def at_most(n_tokens: int) -> Any:
        return replace(chosen, n_tokens=min(chosen.n_tokens or n_tokens, n_tokens))

    return Conversation(model, at_most, system=system, seed=seed)


def import_model(source: Path | str, out: Path | str | None = None) -> Path:
    """Makes a run folder of a pretrained language model and returns it.

    ``source`` is a folder in the Hugging Face layout, a GGUF file, or the name of weights that `data get` fetched.
    """
    from bowerbird.export import import_model as import_pretrained

    weights = [record.name for record in RECORDS if record.kind == "weights"]
    path = locate(str(source)) if str(source) in weights else Path(source)
    if path is None:
        raise BowerbirdError(f"The weights '{source}' are not on this machine yet; run: bowerbird data get {source}")
    return import_pretrained(path, Path(out) if out else Path("runs") / Path(source).stem)


def export(run_dir: Path | str, to: str, out: Path | str | None = None) -> Path:
    """Writes a run's model in the format ``to`` (default: into RUN/export/FORMAT) and returns where it lies.

    ``to`` is onnx, diffusers, huggingface, gguf, safetensors, html or a plugin's format.  What was written is loaded
    back in the program that it is for and compared with the model at two batch sizes; RunFailed, and nothing is left,
    if they differ.
    """
    from bowerbird.export import export_model

    return export_model(folder_of(run_dir), Path(out) if out else place_beside(run_dir, "export") / to, to)


def exports_of(run_dir: Path | str) -> list[str]:
    """The formats of ``export`` that can carry a run's model."""
    from bowerbird.export import exports_of as formats_of

    return formats_of(folder_of(run_dir))
