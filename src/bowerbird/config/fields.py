"""The tables and keys of a recipe: frozen dataclasses, each value checked against its range."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from bowerbird import ranges, registry
from bowerbird.errors import BowerbirdError
from bowerbird.ranges import Count, Decay, NonNegative, Positive, Range, Whole


@dataclass(frozen=True)
class NetworkConfig:
    """A network's hyperparameters.  Subclasses build the roles that they can play (see ``bowerbird.nets``)."""

    def __post_init__(self) -> None:
        ranges.check(self, f"{registry.nets.find(type(self)) or type(self).__name__}.")


@dataclass(frozen=True)
class ModelConfig:
    """A family's hyperparameters.  ``build(spec)`` makes the model for data of that shape."""

    def __post_init__(self) -> None:
        ranges.check(self, "model.")

    def build(self, spec: Any) -> Any:
        raise BowerbirdError(f"The family of {type(self).__name__} must define build(spec), which makes its model.")

    def for_use(self) -> "ModelConfig":
        """The configuration of the trained model by itself, where it differs from that of its training."""
        return self


@dataclass(frozen=True)
class Text:
    """How text becomes tokens and tokens become examples."""

    tokenizer: str = "auto"
    """char, word, byte, bpe (trained on the data), auto (char, unless the data have more than 8,000 characters), or the
    path of a tokenizer.json or of a run folder."""
    vocab_size: Count = 4096
    """Size of the vocabulary that bpe learns."""
    context: Annotated[int, Range(2)] | None = None
    """Most tokens that a model reads at once (None: 256, or less when all documents are shorter)."""
    layout: Literal["auto", "stream", "documents", "packed"] = "auto"
    """stream: one text, cut anywhere; documents: one per row; packed: several per row; auto: stream for .txt files
    whose lines go on, else documents."""
    text: str = "text"
    """Column of a table that holds the text; its number, such as 2, if there is no header."""
    source: str = "source"
    """Pairs of texts: the column of the source."""
    target: str = "target"
    """Pairs of texts: the column of the target. A .tsv without a header has the source first."""
    encoding: str = "auto"
    """Encoding of the files, such as gb18030, big5, shift_jis or latin-1 (auto: UTF-8, and UTF-16 or UTF-32 that begin
    with a byte order mark)."""
    max_mb: Count = 512
    """Most megabytes of text to read, decompressed, over all files; more is refused before memory fills up."""

    def __post_init__(self) -> None:
        ranges.check(self, "data.text.")


@dataclass(frozen=True)
class Music:
    """How music becomes tokens."""

    context: Annotated[int, Range(2)] | None = None
    """Most tokens that a model reads at once (None: 512, or less when all pieces are shorter)."""
    grid: Literal["quarter", "16th"] = "quarter"
    """Length of a frame of the chorales."""
    transpose: bool = False
    """Training pieces are moved by -3 … +3 semitones at random (grids)."""

    def __post_init__(self) -> None:
        ranges.check(self, "data.music.")


@dataclass(frozen=True)
class Speech:
    """How recordings become spectrograms."""

    rate_hz: Annotated[int, Range(1000, 192_000)] | None = None
    """Samples per second to resample to (None: that of most recordings, divided by 2, 3 … down to at most 24,000)."""
    seconds: Positive | None = None
    """Length of an example; shorter recordings end in silence (None: as long as 97 in 100 of them, at most 4)."""
    longer: Literal["cut", "pieces"] = "cut"
    """Recordings that are longer lose their end, or become several examples."""
    frame_ms: Annotated[float, Range(1, 50)] = 12.0
    """Milliseconds from one column of the spectrogram to the next; each looks at four times as much."""
    n_mels: Annotated[int, Range(8, 256)] = 64
    """Rows of the spectrogram: bands of the mel scale, from 0 to half the rate."""
    target: Literal["spectrogram", "waveform"] = "spectrogram"
    """What is learnt: the spectrogram, or, as a vocoder does, the waveform of a spectrogram that is given."""
    pattern: str = ""
    """What file names say, such as {digit}_{speaker}_{index}: each name in braces becomes a column."""
    test: str = ""
    """Recordings to test with, by a column of numbers, such as index<5 (none: by content)."""

    def __post_init__(self) -> None:
        ranges.check(self, "data.speech.")


@dataclass(frozen=True)
class Video:
    """How moving pictures become clips of equally many frames."""

    frames: Annotated[int, Range(2, 256)] = 16
    """Frames of a clip."""
    rate_hz: Annotated[float, Range(0.1, 240)] = 8.0
    """Frames per second of a clip; frame k is what a file shows k / rate seconds after its beginning."""
    longer: Literal["cut", "pieces"] = "cut"
    """Files that are longer lose their end, or become several clips."""
    shorter: Literal["loop", "hold"] = "loop"
    """Files that are shorter begin again, or stay at their last frame."""

    def __post_init__(self) -> None:
        ranges.check(self, "data.video.")


@dataclass(frozen=True)
class Data:
    """Where examples come from and what is done to them."""

    source: str = "digits"
    """A built-in name, a file, a folder or a zip."""
    names: str = "auto"
    """Encoding of file names that are not UTF-8 and state no encoding, as in zips from Windows: gb18030, cp932 …"""
    modality: str = "auto"
    """What the source holds: images, text, pairs, chat, music, speech, video or a plugin's medium; auto looks at its
    files."""
    text: Text = Text()
    music: Music = Music()
    speech: Speech = Speech()
    video: Video = Video()
    size: Count | None = None
    """Side length in pixels to resize to (None: as stored when all images agree, else the median, at most 64)."""
    channels: Literal["auto", "grey", "rgb"] = "auto"
    """Colour of the tensors; auto keeps grey images grey."""
    label: str | None = None
    """Which column of the metadata is the label (None: sub-folder names, else a column 'label' or 'class')."""
    given: tuple[str, ...] = ()
    """Columns that images are made from instead of the label: attributes with few values, and captions. Of clips also
    first, the first frame."""
    wordings: tuple[str, ...] = ()
    """A caption among the given, and columns that say the same in other words, such as another language or tags: each
    training example is shown with one of them, drawn at random."""
    held_out: tuple[str, ...] = ()
    """Columns whose combinations are held out for validation and testing, such as caption and style: each value of the
    first stays in training with other values of the rest."""
    from_: str | None = None
    """Image to image: the source style, which is a value of a column or a folder."""
    to: str | None = None
    """Image to image: the target style. Two images of the same thing, one in each style, are a pair."""
    paired: bool = True
    """Whether pictures of two styles belong to one another; if not, any may stand beside any."""
    halves: Literal["none", "source-left", "source-right"] = "none"
    """Each file holds a pair side by side, the source on this side."""
    shrink: Annotated[int, Range(2, 16)] | None = None
    """Image to image: each picture is made from itself, so many times smaller; a model of that enlarges."""
    flip: bool = False
    """Mirror training images at random from left to right."""
    binarize: Literal["none", "static"] = "none"
    """static: every pixel is drawn once from Bernoulli(value/255), with a fixed seed, for all splits."""
    options: dict[str, str] = field(default_factory=dict, hash=False)
    """What a plugin's medium wants to know."""

    def __post_init__(self) -> None:
        if not self.source:
            raise BowerbirdError("data.source is empty; name built-in data, a file, a folder or a zip.")
        if Path(self.source) == Path(Path(self.source).anchor or "?"):
            raise BowerbirdError(f"{self.source} is the root of the file system; name a folder in it.")
        ranges.check(self, "data.")


@dataclass(frozen=True)
class Train:
    """How a model is trained.  The first budget that is reached ends the run."""

    steps: Count | None = None
    """Budget: optimiser steps of the slowest player."""
    examples: Count | None = None
    """Budget: training examples seen."""
    seconds: Positive | None = None
    """Budget: seconds of training (not bit-reproducible: how far one gets depends on the machine)."""
    compute_seconds: Positive | None = None
    """Budget: compute time in seconds, as `compare` counts it: CPU time of all threads, or time on the accelerator."""
    flops: Positive | None = None
    """Budget: floating-point operations, counted on one profiled step."""
    batch_size: Count = 128
    """Examples per step, over all processes and micro-batches."""
    accumulate: Count = 1
    """Micro-batches per step whose gradients are averaged."""
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    lr: Positive = 2e-4
    """Peak learning rate."""
    lr_multiplier: dict[str, NonNegative] = field(default_factory=dict)
    """Factor on the learning rate per player, such as D = 2.0."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    weight_decay: NonNegative = 0.0
    warmup_steps: Whole = 0
    """Steps over which the learning rate rises linearly from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up; cosine falls to 0 at the end of the budget."""
    clip_norm: Positive | None = None
    """Largest gradient norm per player; longer gradients are scaled down."""
    ema_decay: Decay = 0.999
    """Decay per step of the moving average of the weights (0: none); warmed up as (1+step)/(10+step)."""
    seed: Whole = 0
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 runs forward passes under autocast; auto takes it where a measurement says that it is faster."""
    channels_last: bool | None = None
    """Memory layout of convolutions (None: the network's own preference)."""
    compile: bool = False
    """torch.compile the networks (costs most of a minute at the start on a CPU)."""
    threads: Count | None = None
    """CPU threads (None: the idle cores, found from the load)."""
    log_every: Count = 50
    """Most steps between lines of metrics.jsonl; a short run gets at least 20 lines."""
    sample_every: Whole = 1000
    """Steps between sample grids (0: only at the end)."""
    validate_every: Whole = 0
    """Steps between losses on validation examples, with averaged weights (0: never)."""
    checkpoint_every: Count = 1000
    """Steps between checkpoints."""
    evaluate_every: Whole = 0
    """Images: steps between cheap scores against the validation split, whose best weights are kept (0: never)."""
    evaluate_samples: Count = 512
    """Images that such a score looks at."""
    evaluate_steps: Count = 10
    """Sampler steps that they take (diffusion, flow)."""
    evaluate_share: NonNegative = 0.1
    """Most time that evaluations may take, as a part of the training time; those that come too soon are left out."""
    trackers: tuple[Literal["wandb", "trackio"], ...] = ()
    """Trackers of experiments to tell the numbers to, besides TensorBoard; both stay offline unless told otherwise."""
    start: str = ""
    """Run folder to take the initial weights from, as far as their shapes fit."""
    freeze: tuple[str, ...] = ()
    """Parameters to freeze: patterns of their names, such as net.blocks.0.* or *.embedding.*"""

    def __post_init__(self) -> None:
        ranges.check(self, "train.")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"train.batch_size = {self.batch_size} must be a multiple of accumulate = {self.accumulate}."
            )


@dataclass(frozen=True)
class Expect:
    """A claim that ``make recipes`` checks: after training, ``measure`` with these arguments gives this value."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    extractor: str = "auto"
    split: str = "test"
    """Reference images, such as train+val."""
    n_samples: Count = 10_000
    n_reference: Count | None = None
    measured: float | None = None
    """What we measured."""
    minutes: NonNegative | None = None
    """Training time of the run that was measured."""
    hardware: str = ""
    """The machine that it was measured on."""

    def __post_init__(self) -> None:
        ranges.check(self, f"expect.{self.metric}: ")
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"expect.{self.metric} needs either at_most or at_least.")

    def met_by(self, value: float) -> bool:
        return value <= self.at_most if self.at_most is not None else value >= (self.at_least or 0.0)


@dataclass(frozen=True)
class Run:
    """Everything that a training run is made of."""

    model: ModelConfig
    data: Data = Data()
    train: Train = Train()
    title: str = ""
    plugin: str = ""
    """Python file that registers the family, if it is not built in; in a TOML file relative to that file's folder."""
    expect: tuple[Expect, ...] = ()
