"""What a run makes: samples, speech, edited pictures, conversations."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bowerbird import config, machine, trust
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.generating import Samples, require_own
from bowerbird.generating import generate as generate_samples
from bowerbird.media.giving import read_given
from bowerbird.media.medium import medium
from bowerbird.models.base import GenerativeModel, Streams, options_from
from bowerbird.provenance.labelling import Labeller
from bowerbird.provenance.origins import origin
from bowerbird.provenance.signing import identity
from bowerbird.shipped import place_beside
from bowerbird.spec import Field, Tensors
from bowerbird.training.rundir import explaining_full_disk, explaining_read_only, load_model, model_of

if TYPE_CHECKING:
    from bowerbird.editing import Action, Edited
    from bowerbird.media.speech.saying import Utterance
    from bowerbird.media.text.completing import Conversation


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
