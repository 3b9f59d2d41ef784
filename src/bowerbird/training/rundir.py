"""A run folder: everything that a run is and has done, in files that nothing but a finished write ever replaces.

    run.toml            the resolved configuration; ``bowerbird train run.toml`` repeats the run
    model.safetensors   the weights to use (their moving average), with the data's spec in the header
    best.safetensors    with train.evaluate_every: the weights that scored best while training
    adapters.safetensors  of a fine-tuned model: the corrections alone (model.safetensors has them merged)
    tokenizer.json      of sequences: what turns tokens into text or music and back; chat_template.jinja of chats
    state/              all that resuming needs: weights, average, optimisers (tensors) and counters (header)
    metrics.jsonl       one JSON object per logged step
    signals.jsonl       what the diagnosis saw (layers, samples, losses); diagnosis.json what it found
    samples/            a grid per sampling interval
    environment.json    machine and software
    report.html         written at the end

Every file is written under a temporary name, flushed to the disk and renamed, so a crash at any moment leaves the
last good one.  Nothing is a pickle.
"""

import contextlib
import errno
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bowerbird import config, registry
from bowerbird.data.writing import write_atomically, write_text
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.spec import IN_FILES, spec_from_json, spec_to_json


@contextlib.contextmanager
def explaining_full_disk(folder: Path) -> Iterator[None]:
    """Turns "no space left" into a sentence.  What was written before stays as it is."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error).lower()
        if not full:
            raise
        raise RunFailed(
            f"The disk is full: nothing more could be written to {folder}. The last checkpoint is intact; free some "
            f"space and continue with: bowerbird resume {folder}"
        ) from error


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of version 0.1, which knew one label, under today's names."""
    today = ".given.embed.label.table."
    return {re.sub(r"(?<!\.given\.embed)\.label\.table\.", today, name): value for name, value in tensors.items()}


class RunDir:
    """Paths and files of one run."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.run_toml = self.path / "run.toml"
        self.model_file = self.path / "model.safetensors"
        self.best_file = self.path / "best.safetensors"
        self.state_file = self.path / "state" / "state.safetensors"
        self.metrics_file = self.path / "metrics.jsonl"
        self.samples = self.path / "samples"

    @classmethod
    def create(cls, path: Path | str, run: config.Run, environment: dict[str, Any]) -> "RunDir":
        folder = cls(path)
        if folder.run_toml.exists():
            raise BowerbirdError(
                f"{path} already holds a run; continue it with 'bowerbird resume {path}' or choose another --out."
            )
        try:
            folder.state_file.parent.mkdir(parents=True, exist_ok=True)
            folder.samples.mkdir(exist_ok=True)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise BowerbirdError(f"The run folder {path} cannot be made: {error.strerror}.") from error
        folder.write_json("environment.json", environment)
        folder.write_text(folder.run_toml.name, config.dumps(run))
        return folder

    @classmethod
    def open(cls, path: Path | str) -> "RunDir":
        folder = cls(path)
        if not folder.run_toml.is_file():
            raise BowerbirdError(f"{path} is not a run folder: it has no run.toml.")
        return folder

    def config(self) -> config.Run:
        return config.load(str(self.run_toml))

    def write_text(self, name: str, text: str) -> None:
        write_text(self.path / name, text)

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    # ------------------------------------------------------------------------------------------- checkpoints

    def save_state(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        header = {"counters": json.dumps(counters)}
        write_atomically(self.state_file, lambda p: safetensors.torch.save_file(tensors, p, header))

    def load_state(self) -> dict[str, Tensor]:
        return renamed(safetensors.torch.load_file(self.state_file))

    def status(self) -> dict[str, Any]:
        """The last checkpoint's step, examples, seconds, flops, parameters, finished; empty before the first."""
        if not self.state_file.is_file():
            return {}
        with safe_open(self.state_file, framework="pt") as file:
            return json.loads(file.metadata()["counters"])

    def save_model(
        self, weights: dict[str, Tensor], spec: Any, step: int, adapters: dict[str, Tensor] | None = None
    ) -> None:
        for name, file in IN_FILES.items():
            if text := getattr(spec, name, ""):
                self.write_text(file, text)
        if adapters:
            write_atomically(self.path / "adapters.safetensors", lambda p: safetensors.torch.save_file(adapters, p))
        header = {"spec": json.dumps(spec_to_json(spec)), "step": str(step), "format": "pt"}
        write_atomically(self.model_file, lambda p: safetensors.torch.save_file(weights, p, header))

    def save_best(self, weights: dict[str, Tensor], spec: Any, step: int, score: float) -> None:
        header = {"spec": json.dumps(spec_to_json(spec)), "step": str(step), "score": repr(score), "format": "pt"}
        write_atomically(self.best_file, lambda p: safetensors.torch.save_file(weights, p, header))

    def best(self) -> tuple[int, float] | None:
        """Step and score of the weights that scored best, None where none were scored."""
        if not self.best_file.is_file():
            return None
        with safe_open(self.best_file, framework="pt") as file:
            header = file.metadata()
        return int(header["step"]), float(header["score"])

    def spec(self, table: dict[str, Any]) -> Any:
        """The spec of which ``save_model`` wrote ``table`` into the header."""
        paths = {name: self.path / file for name, file in IN_FILES.items()}
        return spec_from_json(
            table, **{name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.is_file()}
        )

    # ------------------------------------------------------------------------------------------- metrics

    def append_metrics(self, row: dict[str, Any]) -> None:
        self.append_line(self.metrics_file.name, row)

    def append_line(self, name: str, row: dict[str, Any]) -> None:
        with open(self.path / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.write_text(name, "".join(json.dumps(row) + "\n" for row in rows))

    def metrics(self) -> list[dict[str, Any]]:
        """All complete rows; a line that a crash cut short is left out."""
        if not self.metrics_file.is_file():
            return []
        rows = []
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def truncate_metrics(self, step: int) -> None:
        """Drops the rows after ``step``: they will be written again by the resumed run."""
        self.write_lines(self.metrics_file.name, [row for row in self.metrics() if row["step"] <= step])


class _Uninitialised(TorchFunctionMode):
    """Inside, parameters keep the values that they are made with.

    On the meta device they have none, and drawing numbers for them would import torch's compiler, which takes 1.4 s.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "trunc_normal_", "_no_grad_trunc_normal_"):
            return (*args, *(kwargs or {}).values())[0]
        return func(*args, **(kwargs or {}))


def model_of(path: Path | str) -> Any:
    """The model of a run folder as a shape without weights: what it takes and what its options are."""
    folder = RunDir.open(path)
    if not folder.model_file.is_file():
        raise BowerbirdError(f"{path} holds no model yet; continue the run with: bowerbird resume {path}")
    run = folder.config()
    if run.plugin:
        registry.load_plugin(Path(run.plugin))
    with safe_open(folder.model_file, framework="pt") as file, torch.device("meta"), _Uninitialised():
        return run.model.for_use().build(folder.spec(json.loads(file.metadata()["spec"])))


def load_model(path: Path | str, device: str = "cpu", *, best: bool = False) -> tuple[Any, Any]:
    """The trained model of a run folder, with the averaged weights, in eval mode, and its data's spec.

    ``best``: the weights that scored best while training instead of the last ones.
    """
    folder = RunDir.open(path)
    weights = folder.best_file if best else folder.model_file
    if best and not weights.is_file():
        raise BowerbirdError(f"{path} holds no best weights; they are kept by training with --train.evaluate-every.")
    if not weights.is_file():
        raise BowerbirdError(f"{path} holds no model yet; continue the run with: bowerbird resume {path}")
    run = folder.config()
    if run.plugin:
        registry.load_plugin(Path(run.plugin))
    try:
        with safe_open(weights, framework="pt") as file:
            spec = folder.spec(json.loads(file.metadata()["spec"]))
        model = run.model.for_use().build(spec)
        model.load_state_dict(renamed(safetensors.torch.load_file(weights)))
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BowerbirdError(f"{weights} cannot be loaded into the model of run.toml: {reason}") from error
    layout = torch.channels_last if run.train.channels_last else torch.preserve_format
    return model.to(device).to(memory_format=layout).eval().requires_grad_(False), spec
