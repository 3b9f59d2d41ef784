"""A run folder: everything that a run is and has done, in files that nothing but a finished write ever replaces.

    run.toml            the resolved configuration; ``bowerbird train run.toml`` repeats the run
    model.safetensors   the weights to use (their moving average), with the data's spec in the header
    best.safetensors    with train.evaluate_every: the weights that scored best while training
    adapters.safetensors  of a fine-tuned model: the corrections alone (model.safetensors has them merged)
    tokenizer.json      of sequences: what turns tokens into text or music and back; chat_template.jinja of chats
    state/              all that resuming needs: weights, average, optimisers (tensors), counters, settings and data
                        (header); the state before the last one is kept as previous.safetensors
    metrics.jsonl       one JSON object per logged step
    signals.jsonl       what the diagnosis saw (layers, samples, losses); diagnosis.json what it found
    samples/            a grid per sampling interval
    environment.json    machine and software; fingerprint and licence of the data (DATA-LICENCE.txt: of built-in ones)
    report.html         written at the end

Every file is written under a temporary name, flushed to the disk and renamed, so a crash at any moment leaves the
last good one.  Files of tensors carry a checksum.  Nothing is a pickle.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bowerbird import config
from bowerbird.data.names import naturally
from bowerbird.data.tensorfile import Damaged, read_header, read_tensors, verify, write_tensors
from bowerbird.data.writing import write_text
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.shipped import folder_of, runs
from bowerbird.spec import IN_FILES, Spec, spec_from_json, spec_to_json
from bowerbird.training import lock, salvage

MOST_NAMED = 8
"""Runs that a message names."""


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
            f"The disk is full: nothing more could be written to {folder}. {_after_making_room(folder)}"
        ) from error


@contextlib.contextmanager
def explaining_read_only(folder: Path) -> Iterator[None]:
    """Turns a folder that cannot be written to into a sentence that says where else the files may go."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise RunFailed(f"{folder} cannot be written to ({error.strerror}); choose another --out.") from error


def require_apart(source: str, out: Path) -> None:
    """BowerbirdError for a run inside the folder of its data: its samples would become data."""
    if Path(source).is_dir() and out.resolve().is_relative_to(Path(source).resolve()):
        raise BowerbirdError(
            f"The run folder {out} lies inside the data {source}, of which its own samples would become a part; choose "
            "another place with --out."
        )


def _after_making_room(folder: Path) -> str:
    if (folder / "state" / "state.safetensors").is_file():
        return f"The last checkpoint is intact; free some space and continue with: bowerbird resume {folder}"
    return "Free some space and repeat the command, or choose an --out on another disk."


def _why_no_run(path: Path) -> str:
    """Why a path is no run folder, and which one may be meant: the run that it lies in, or one that lies in it."""
    if above := next((folder for folder in path.parents if (folder / "run.toml").is_file()), None):
        return f"it lies in a run folder; give that: {above}"
    if not path.exists():
        return f"it does not exist. Runs that ship with Bowerbird: {', '.join(runs())}."
    if inside := naturally(str(toml.parent) for toml in path.glob("*/run.toml")):
        shown = ", ".join(inside[:MOST_NAMED]) + (" …" if len(inside) > MOST_NAMED else "")
        return f"it holds runs ({len(inside)}); give one of them: {shown}"
    return f"it has no run.toml. Runs that ship with Bowerbird: {', '.join(runs())}."


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of version 0.1, which knew one label, under today's names."""
    today = ".given.embed.label.table."
    return {re.sub(r"(?<!\.given\.embed)\.label\.table\.", today, name): value for name, value in tensors.items()}


@dataclass(frozen=True)
class SavedState:
    """What was read of the newest state that is intact."""

    tensors: dict[str, Tensor]
    counters: dict[str, Any]
    record: dict[str, Any]
    """What the run was made with (see ``changes``); empty in version 0.1."""
    note: str
    """What is wrong with a newer one; empty if there is none."""


class RunDir:
    """Paths and files of one run."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.run_toml = self.path / "run.toml"
        self.model_file = self.path / "model.safetensors"
        self.best_file = self.path / "best.safetensors"
        self.state_file = self.path / "state" / "state.safetensors"
        self.previous_file = self.path / "state" / "previous.safetensors"
        self.metrics_file = self.path / "metrics.jsonl"
        self.samples = self.path / "samples"

    @classmethod
    def create(cls, path: Path | str, run: config.Run, environment: dict[str, Any]) -> "RunDir":
        """A new run in a folder that holds nothing yet."""
        folder = cls(path)
        with folder.starting():
            folder.begin(run, environment)
        return folder

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Makes the folder and keeps others from writing to it; unless it becomes a run inside, nothing is left."""
        new = self._make()
        try:
            with lock.locked(self.path):
                self._require_empty()
                try:
                    yield
                finally:
                    if not self.run_toml.exists():
                        self._discard()
        finally:
            if new:
                with contextlib.suppress(OSError):  # it is not empty: it is a run
                    self.path.rmdir()

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Keeps others from writing to the run inside; what killed writers left unfinished is deleted."""
        with lock.locked(self.path):
            lock.sweep(self.path)
            yield

    def _make(self) -> bool:
        """Whether the folder had to be made."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise BowerbirdError(f"The run folder {self.path} cannot be created: {error.strerror}.") from error
        return new

    def _require_empty(self) -> None:
        if self.run_toml.exists():
            raise BowerbirdError(
                f"{self.path} already holds a run; continue it with 'bowerbird resume {self.path}' or choose another "
                "--out."
            )
        strange = next((p for p in self.path.rglob("*") if not p.is_dir() and not lock.ours(p)), None)
        if strange is not None:
            raise BowerbirdError(
                f"{self.path} is not empty (it holds {strange.relative_to(self.path)}); choose a new or empty "
                "folder for --out."
            )

    def _discard(self) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != lock.NAME:
                path.unlink()

    def begin(self, run: config.Run, environment: dict[str, Any]) -> None:
        """Writes what makes the folder a run; run.toml first, for a folder without it is none."""
        self.state_file.parent.mkdir(exist_ok=True)
        self.samples.mkdir(exist_ok=True)
        self.write_config(run)
        self.write_json("environment.json", environment)

    @classmethod
    def open(cls, path: Path | str) -> "RunDir":
        """The run in a folder, or one that ships, by its name."""
        folder = cls(folder_of(path))
        if not folder.run_toml.is_file():
            raise BowerbirdError(f"{path} is not a run folder: {_why_no_run(folder.path)}")
        return folder

    def write_config(self, run: config.Run) -> None:
        self.write_text(self.run_toml.name, config.dumps(run))

    def config(self) -> config.Run:
        return config.load(str(self.run_toml))

    def write_text(self, name: str, text: str) -> None:
        write_text(self.path / name, text)

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    # ------------------------------------------------------------------------------------------- checkpoints

    def save_state(
        self, tensors: dict[str, Tensor], counters: dict[str, Any], record: dict[str, Any] | None = None
    ) -> None:
        """Writes a state; the one before it becomes ``previous_file``, and the one before that is deleted."""
        written = self.state_file.with_name("next.safetensors")
        write_tensors(written, tensors, {"counters": counters, "record": record or {}})
        if self.state_file.is_file():
            os.replace(self.state_file, self.previous_file)
        os.replace(written, self.state_file)

    def saved_state(self) -> SavedState | None:
        """The newest state that is intact; None before the first, Damaged if there are only damaged ones."""
        note = ""
        for file in self._states():
            try:
                header, tensors = read_header(file), read_tensors(file)
                counters = _counters(header, file)
                record = header.get("record", {})
                return SavedState(renamed(tensors), counters, record, note and f"{note} Continuing from {file}.")
            except Damaged as error:
                note = note or str(error)
        if not note:
            return None
        raise Damaged(f"{note} No intact state is left in {self.state_file.parent}, so the run cannot be continued; "
                      f"start another one: bowerbird train {self.run_toml} --start {self.path} --out NEW")  # fmt: skip

    def load_state(self) -> dict[str, Tensor]:
        """The tensors of the newest intact state; none before the first."""
        found = self.saved_state()
        return found.tensors if found else {}

    def status(self) -> dict[str, Any]:
        """The last checkpoint's step, examples, seconds, flops, parameters, finished; empty before the first."""
        return self._header()[0]

    def record(self) -> dict[str, Any]:
        """What the last checkpoint says the run was made with; empty before the first, and in version 0.1."""
        return self._header()[1]

    def _header(self) -> tuple[dict[str, Any], dict[str, Any]]:
        for file in self._states():
            with contextlib.suppress(Damaged):
                header = read_header(file)
                return _counters(header, file), header.get("record", {})
        return {}, {}

    def _states(self) -> list[Path]:
        return [file for file in (self.state_file, self.previous_file) if file.is_file()]

    def save_model(
        self, weights: dict[str, Tensor], spec: Any, step: int, adapters: dict[str, Tensor] | None = None
    ) -> None:
        for name, file in IN_FILES.items():
            if text := getattr(spec, name, ""):
                self.write_text(file, text)
        if adapters:
            write_tensors(self.path / "adapters.safetensors", adapters, {"step": step})
        write_tensors(self.model_file, weights, _about(spec) | {"step": step})

    def save_best(self, weights: dict[str, Tensor], spec: Any, step: int, score: float) -> None:
        write_tensors(self.best_file, weights, _about(spec) | {"step": step, "score": score})

    def best(self) -> tuple[int, float] | None:
        """Step and score of the weights that scored best, None where none were scored, or the file is damaged."""
        if not self.best_file.is_file():
            return None
        try:
            verify(self.best_file)
            header = read_header(self.best_file)
            return int(header["step"]), float(header["score"])
        except (Damaged, KeyError, TypeError, ValueError):
            return None

    def spec_of(self, weights: Path) -> Spec:
        """The spec in the header of ``model_file`` or ``best_file``; Damaged if there is none, or if the tokenizer
        beside it is not the one that it was trained with."""
        try:
            header = read_header(weights)
            texts = {
                name: (self.path / file).read_text(encoding="utf-8")
                for name, file in IN_FILES.items()
                if (self.path / file).is_file()
            }
            for name, crc in header.get("texts", {}).items():
                if _crc(texts.get(name, "")) != crc:
                    state = "is not the one that the model was trained with" if name in texts else "is missing"
                    raise Damaged(f"{self.path / IN_FILES[name]} {state}; put back the file of this run, or have it "
                                  f"written again: bowerbird resume {self.path} --budget +1steps")  # fmt: skip
            return spec_from_json(header["spec"], **texts)
        except UnicodeDecodeError as error:
            raise Damaged(f"A text file beside {weights} is damaged: {error}.") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Damaged(f"{weights} is damaged: its header does not say what the model makes.") from error

    # ------------------------------------------------------------------------------------------- metrics

    def append_metrics(self, row: dict[str, Any]) -> None:
        self.append_line(self.metrics_file.name, row)

    def append_line(self, name: str, row: dict[str, Any]) -> None:
        with open(self.path / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.write_text(name, "".join(json.dumps(row) + "\n" for row in rows))

    def metrics(self) -> list[dict[str, Any]]:
        """All complete rows, numbers by name and events; what a crash cut short or something damaged is left out."""
        rows = self.rows(self.metrics_file.name)
        return [row if "event" in row else {k: v for k, v in row.items() if _is_number(v)} for row in rows]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The complete rows of one of the run's files of lines."""
        return salvage.json_rows(self.path / name)

    def truncate_metrics(self, step: int) -> None:
        """Drops the rows after ``step``: they will be written again by the resumed run."""
        self.write_lines(self.metrics_file.name, [row for row in self.metrics() if row["step"] <= step])


def _about(spec: Spec) -> dict[str, Any]:
    """What a file of weights says in its header: the spec, and which texts beside the file belong to it."""
    texts = {name: _crc(text) for name in IN_FILES if (text := getattr(spec, name, ""))}
    return {"spec": spec_to_json(spec)} | ({"texts": texts} if texts else {})


def _crc(text: str) -> int:
    """Whatever ends its lines, which reading and writing may change."""
    return zlib.crc32("\n".join(text.splitlines()).encode())


_KINDS = {"step": int, "examples": int, "seconds": float, "flops": float, "parameters": int, "finished": bool}
"""Counters that every state has."""


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63)


def _counters(header: dict[str, Any], file: Path) -> dict[str, Any]:
    counters = header.get("counters")
    if not isinstance(counters, dict) or not all(
        isinstance(counters.get(name), int | float if kind is float else kind) for name, kind in _KINDS.items()
    ):
        raise Damaged(f"{file} is damaged: its header does not say how far the run has come.")
    return counters


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
    weights = _weights_in(folder)
    with torch.device("meta"), _Uninitialised(), _fitting(weights):
        return folder.config().model.for_use().build(folder.spec_of(weights))


def load_model(path: Path | str, device: str = "cpu", *, best: bool = False) -> tuple[Any, Any]:
    """The trained model of a run folder, with the averaged weights, in eval mode, and its data's spec.

    ``best``: the weights that scored best while training instead of the last ones.
    """
    folder = RunDir.open(path)
    weights = _weights_in(folder, best=best)
    run, spec = folder.config(), folder.spec_of(weights)
    tensors = renamed(read_tensors(weights))
    with _fitting(weights):
        model = run.model.for_use().build(spec)
        model.load_state_dict(tensors)
    layout = torch.channels_last if run.train.channels_last else torch.preserve_format
    return model.to(device).to(memory_format=layout).eval().requires_grad_(False), spec


def _weights_in(folder: RunDir, *, best: bool = False) -> Path:
    path = folder.path
    if best and not folder.best_file.is_file():
        raise BowerbirdError(f"{path} holds no best weights; they are kept by training with --train.evaluate-every.")
    if not best and not folder.model_file.is_file():
        raise BowerbirdError(f"{path} holds no model yet; continue the run with: bowerbird resume {path}")
    return folder.best_file if best else folder.model_file


@contextlib.contextmanager
def _fitting(weights: Path) -> Iterator[None]:
    """Inside, a model is built of a spec and given weights that may have been damaged or made by something else."""
    try:
        yield
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BowerbirdError(f"{weights} cannot be loaded into the model of run.toml: {reason}") from error
