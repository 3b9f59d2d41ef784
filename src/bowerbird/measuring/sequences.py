"""Measures models of sequences: their likelihoods, their texts or music, their translations.

Documents that are longer than the model's context are scored in pieces, each without a view of the one before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bowerbird.data.tokenizers import Tokenizer
from bowerbird.data.tokens import Rows, TokenData
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.generating import draw
from bowerbird.media.music.codec import MusicCodec
from bowerbird.media.music.grid import GridCodec
from bowerbird.metrics.measurement import METRICS, Measurement, Protocol, settings
from bowerbird.metrics.music import MIDI_METRICS, MUSIC_METRICS, Piece, measure_music
from bowerbird.metrics.ngram import fit_bigram
from bowerbird.metrics.nll import measure_nll
from bowerbird.metrics.progress import progress_bar
from bowerbird.metrics.text import TEXT_METRICS, measure_texts, share_of_form
from bowerbird.metrics.translation import TRANSLATION_METRICS, measure_translations
from bowerbird.models.base import Batch, GenerativeModel, Scores, evaluating, options_from

TEXT_LIKELIHOODS = ("nll_per_token", "perplexity", "bits_per_byte", "bits_per_character")
MUSIC_LIKELIHOODS = (
    "perplexity",
    *(f"{who}nll_per_{unit}" for unit in ("token", "frame", "note") for who in ("", "bigram_")),
)
N_TEXTS, N_PIECES = 200, 20
"""Samples that are drawn unless said otherwise."""
FORMS = ((4, 5), (4, 7), (8, 5), (8, 7))
"""Lines and characters of the verse forms that are looked for."""
OF_A_FORM = 0.95
"""Share of the reference texts from which on they count as verses of one form."""
BATCH = 64


def measure_sequence_model(
    model: GenerativeModel,
    data: TokenData,
    *,
    n_samples: int | None = None,
    n_reference: int | None = None,
    split: str = "test",
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    sample_options: dict[str, Any] | None = None,
) -> list[Measurement]:
    """Likelihood of a split under the model, and what its samples (or translations) are like beside it.

    ``metrics`` None takes all that apply to these data.
    """
    if data.spec.codec != model.spec.codec:
        raise BowerbirdError(
            f"{data.name} was read into other tokens than this model's; measure it on what it was trained on, or with "
            "--data.text.tokenizer of its run folder."
        )
    music = data.spec.medium == "music"
    made = TRANSLATION_METRICS if ("source" in model.spec.given) else _music_metrics(data) if music else TEXT_METRICS
    scored = MUSIC_LIKELIHOODS if music else TEXT_LIKELIHOODS
    extra = () if music or ("source" in model.spec.given) else ("text_form",)
    for name in metrics or ():
        if name not in (*scored, *made, *extra):
            raise unknown(f"metric of {data.spec.medium}", name, (*scored, *made, *extra))
    wanted = (*scored, *made, *extra) if metrics is None else tuple(metrics)
    protocol = Protocol(
        reference=data.name, split=split, fingerprint=data.fingerprint, preprocessing=settings(data.preprocessing)
    )
    results = []
    if set(wanted) & set(scored):
        results += measure_likelihood(model, data, split, n_reference, protocol)
    chosen = [name for name in made if name in wanted]
    if ("source" in model.spec.given) and chosen:
        results += _translations(model, data, split, n_reference, chosen, sample_options or {}, protocol)
    elif chosen or "text_form" in wanted:
        tokens = draw_tokens(model, n_samples or (N_PIECES if music else N_TEXTS), seed, sample_options)
        with_options = replace(protocol, parameters=settings(sample_options or {}))
        measure = _music if music else _texts
        results += measure(tokens, data, split, chosen, with_options)
    order = list(METRICS)
    return sorted((m for m in results if m.name in wanted), key=lambda m: order.index(m.name))


def _music_metrics(data: TokenData) -> tuple[str, ...]:
    return MUSIC_METRICS if isinstance(MusicCodec.from_json(data.spec.codec), GridCodec) else MIDI_METRICS


@torch.no_grad()
def draw_tokens(model: GenerativeModel, n: int, seed: int = 0, options: dict[str, Any] | None = None) -> list[Tensor]:
    """n sequences of tokens as the model makes them without a prompt, each int64 (length), padded after its end."""
    return list(draw(model, n, seed=seed, options=options).x)


# -------------------------------------------------------------------------------------------------------- likelihood


def measure_likelihood(
    model: GenerativeModel, data: TokenData, split: str, n_reference: int | None, protocol: Protocol
) -> list[Measurement]:
    """-log p of a split's first ``n_reference`` examples (None: all) per token, byte, character, frame and note."""
    if not isinstance(model, Scores):
        raise BowerbirdError(f"{type(model).__name__} has no likelihood.")
    evaluation = data.evaluation(split)
    n = min(n_reference or len(evaluation.examples), len(evaluation.examples))
    estimator = model.estimators["nll"]
    nll, n_tokens, rows = [], [], []
    with progress_bar("likelihood", n) as progress, torch.no_grad(), evaluating(model):
        for batch in _batches(evaluation.examples, n, model.device):
            nll.append(-estimator.log_prob(Batch(**batch)).double().cpu())
            n_tokens.append(batch["weight"].sum(1).cpu())
            rows += [row.numpy() for row in batch["x"].cpu()]
            progress(len(nll[-1]))
    counts: dict[str, np.ndarray | int] = {"token": torch.cat(n_tokens).numpy()}
    bigram = None
    if data.spec.medium == "music":
        codec = MusicCodec.from_json(data.spec.codec)
        counts |= _music_counts(codec, rows)
        bigram = _bigram_nll(data, rows)
    elif n == len(evaluation.examples):
        counts |= {"byte": evaluation.n_bytes, "character": evaluation.n_characters}
    protocol = replace(
        protocol,
        parameters=settings({"estimator": estimator.description, "context": data.tokens.context}),
    )
    return measure_nll(torch.cat(nll).numpy(), counts, bigram=bigram, protocol=protocol)


def _batches(examples: Rows, n: int, device: torch.device) -> Iterator[dict[str, Any]]:
    for chosen in torch.arange(n).split(BATCH):
        yield examples.batch(chosen, device)


def _music_counts(codec: MusicCodec, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    new = [_without_overlap(codec, row) for row in rows]
    counts = {"note": np.array([len(codec.notes(row.tolist())) for row in new])}
    if isinstance(codec, GridCodec):
        counts["frame"] = np.array([(row >= codec.rest).sum() / codec.n_voices for row in new])
    return counts


def _without_overlap(codec: MusicCodec, row: Any) -> Any:
    """A row's tokens without the first, where it repeats the last of the row before: it would shift all voices."""
    return row if not len(row) or row[0] == codec.bos else row[1:]


def _bigram_nll(data: TokenData, rows: list[np.ndarray]) -> np.ndarray:
    """Nats of each row under the bigram model of the training split."""
    learnt, held_out = ([row.numpy() for row in _documents(data, split)] for split in ("train", "val"))
    bigram = fit_bigram(learnt, held_out, data.tokens.vocab_size)
    pad = data.tokens.pad
    return np.array([bigram.nll(row[row != pad]).sum() for row in rows])


def _documents(data: TokenData, split: str) -> list[Tensor]:
    """The tokens of every example of a split."""
    examples = data.evaluation(split).examples
    return [examples.tokens[begin:end].long() for begin, end in zip(examples.begin, examples.end, strict=True)]


# ----------------------------------------------------------------------------------------------------------- samples


def _texts(
    tokens: list[Tensor], data: TokenData, split: str, metrics: list[str], protocol: Protocol
) -> list[Measurement]:
    tokenizer = Tokenizer.from_spec(data.spec)
    samples = [tokenizer.decode(row.tolist()) for row in tokens]
    reference = data.texts(split)
    if len(reference) == 1:  # a stream: texts of the samples' length
        reference = [tokenizer.decode(row.tolist()) for row in _documents(data, split)]
    form = next((form for form in FORMS if share_of_form(reference, *form) >= OF_A_FORM), None)
    return measure_texts(samples, reference, data.texts("train"), metrics=metrics, form=form, protocol=protocol)


def _music(
    tokens: list[Tensor], data: TokenData, split: str, metrics: list[str], protocol: Protocol
) -> list[Measurement]:
    codec = MusicCodec.from_json(data.spec.codec)
    samples = [piece for row in tokens if len(piece := _piece(codec, row))]
    if not samples:
        raise BowerbirdError("The model's samples hold no notes; train it longer.")
    reference, training = ([_piece(codec, row) for row in _documents(data, part)] for part in (split, "train"))
    frame = codec.frame_quarters if isinstance(codec, GridCodec) else 1.0
    kind: Literal["grid", "midi"] = "grid" if isinstance(codec, GridCodec) else "midi"
    return measure_music(
        samples, [piece for piece in reference if len(piece)], training,
        kind=kind, frame_quarters=frame, metrics=metrics, protocol=protocol,
    )  # fmt: skip


def _piece(codec: MusicCodec, tokens: Tensor) -> Piece:
    """A grid (frames, voices), or notes (notes, 3) of onset, duration and pitch, without drums."""
    tokens = _without_overlap(codec, tokens)
    if isinstance(codec, GridCodec):
        return codec.decode(tokens.tolist())
    piece = codec.piece(tokens.tolist())
    notes = [(note.onset, note.duration, note.pitch) for note in piece.notes if not piece.voices[note.voice].is_drum]
    return np.array(notes, dtype=float).reshape(-1, 3)


def _translations(
    model: Any,
    data: TokenData,
    split: str,
    n_reference: int | None,
    metrics: list[str],
    options: dict[str, Any],
    protocol: Protocol,
) -> list[Measurement]:
    chosen = options_from(model, options)
    examples = data.evaluation(split).examples
    n = min(n_reference or len(examples), len(examples))
    tokenizer = Tokenizer.from_spec(data.spec)
    made: list[str] = []
    with progress_bar("translating", n) as progress, evaluating(model):
        for batch in _batches(examples, n, model.device):
            n_rows = len(batch["x"])
            rows = model.sample(n_rows, batch["given"], chosen, Draws(0, len(made)))
            made += [tokenizer.decode(row.tolist()) for row in rows]
            progress(n_rows)
    references = [target for _, target in data.pairs(split)][:n]
    decoding = {"beam": model.config.beam, "length_penalty": model.config.length_penalty} | options
    return measure_translations(
        made, references, metrics=metrics, protocol=replace(protocol, parameters=settings(decoding))
    )
