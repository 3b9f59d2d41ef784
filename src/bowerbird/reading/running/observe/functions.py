"""Watches every torch function that the user's lines reach: what it was given and what it gave.

One mode of ``torch.overrides`` sees all calls, also those that modules make on the user's behalf.  It also keeps CUDA
out of sight: a device that is not there becomes the CPU, and that is said.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from bowerbird.reading.running.observe.calls import CallWatch
from bowerbird.reading.running.observe.flow import Flow
from bowerbird.reading.running.observe.training import TrainingWatch
from bowerbird.reading.running.recorder import Recorder, summary
from bowerbird.reading.running.standins.anything import Anything

LOSSES = frozenset(
    "mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits cross_entropy "
    "nll_loss kl_div gaussian_nll_loss poisson_nll_loss hinge_embedding_loss cosine_embedding_loss margin_ranking_loss "
    "soft_margin_loss triplet_margin_loss ctc_loss".split()
)
DRAWS = frozenset(
    "randn rand randn_like rand_like normal randint randint_like normal_ uniform_ bernoulli bernoulli_ multinomial "
    "randperm random_ exponential_".split()
)
ARITHMETIC = frozenset(
    "add sub mul div __add__ __sub__ __mul__ __truediv__ __radd__ __rsub__ __rmul__ __rtruediv__ __pow__ pow "
    "add_ sub_ mul_ div_ __iadd__ __isub__ __imul__ maximum minimum where".split()
) | {"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"}
_SILENT = frozenset(
    "__get__ __set__ size dim numel is_floating_point is_complex __hash__ __repr__ __len__ __format__ __bool__ "
    "__float__ __deepcopy__ __reduce_ex__ element_size data_ptr storage_offset stride is_contiguous "
    "untyped_storage __iter__ ndimension".split()
)
FULL = 3
_WRAPPERS = (
    "torch/overrides.py",
    "torch/_tensor.py",
    "torch/functional.py",
    "nn/functional.py",
    "torch/_jit_internal.py",
    "reading/running/compat.py",
)
_GONE = ("cuda", "mps", "xpu", "hip", "xla", "npu")


class FunctionWatch(TorchFunctionMode):
    """The mode; ``replaced`` is told once that a device was not there."""

    def __init__(self, recorder: Recorder, training: TrainingWatch, replaced: Callable[[str, str], None]) -> None:
        super().__init__()
        self.recorder, self.training, self.replaced = recorder, training, replaced
        self.quiet = False
        self.flow = training.modules.flow = Flow()
        self.calls = training.modules.functions = CallWatch(recorder, self.flow)
        self.rows: dict[tuple[str, int | None, str], dict[str, Any]] = {}
        self.times: dict[tuple[str, int | None, str, str], int] = {}
        self.last: dict[tuple[str, int | None, str, str], dict[str, Any]] = {}
        self.losses: list[dict[str, Any]] = []

    def __enter__(self) -> "FunctionWatch":
        super().__enter__()
        if not self.quiet:
            self.calls.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self.calls.stop()
        super().__exit__(*details)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _SILENT:
            self.flow.takes(args, kwargs)
            return func(*args, **kwargs)
        if name == "__getitem__" and len(args) == 2 and args[0].ndim == 0 and args[1] == 0 and isinstance(args[1], int):
            self.replaced("x[0] of a single number", "it was allowed in PyTorch before 0.5; the number was taken")
            return args[0]
        if name in ("masked_fill", "masked_fill_") and len(args) > 1 and _is_bytes(args[1]):
            self.replaced("masks of bytes", "they were removed from PyTorch; masks of booleans were taken")
            args = (args[0], args[1].bool(), *args[2:])
        if name in ("cuda", "to", "type", "pin_memory") or "device" in kwargs:
            args, kwargs, done = self._on_cpu(name, args, kwargs)
            if done is not None:
                return done
        unseen = self.quiet or self.training.within_step
        frame = None if unseen else self.recorder.user_frame(sys._getframe(1))
        self.flow.takes(args, kwargs, frame)
        if frame is None:
            return func(*args, **kwargs)
        file, line = frame.f_code.co_filename, frame.f_lineno
        row = self.rows.get((file, line, name))
        before = self.recorder.safely(self._before, name, file, line, args, kwargs)
        out = func(*args, **kwargs)
        direct = row["direct"] if row is not None and "direct" in row else _asker(sys._getframe(1)) is frame
        if direct:
            self.flow.makes((file, line, name), out, args, kwargs)
        if row is not None:
            row["count"] += 1
        else:
            self.rows[file, line, name] = self.recorder.safely(self._row, direct, args, kwargs, out) or {"count": 1}
        if before is not None:
            self.recorder.safely(self._after, name, file, line, before, out)
        return out

    def _row(self, direct: bool, args: Any, kwargs: Any, out: Any) -> dict[str, Any]:
        return {
            "count": 1, "direct": direct, "args": [_short(a) for a in args[:6]],
            "kwargs": {k: _short(v) for k, v in kwargs.items() if v is not None}, "out": _short(out),
            **self.recorder.tick(),
        }  # fmt: skip

    def _on_cpu(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "cuda" or name == "pin_memory":
            self.replaced("CUDA", "there is no GPU; everything runs on the CPU")
            return args, kwargs, args[0]
        moved = tuple(self._device(a) for a in args) if name == "to" else args
        if name == "type" and len(args) > 1:
            kind = args[1] if isinstance(args[1], str) else ""
            moved = (args[0], kind.replace("torch.cuda.", "torch."), *args[2:]) if kind else args
        if "device" in kwargs:
            kwargs = {**kwargs, "device": self._device(kwargs["device"])}
        return moved, kwargs, None

    def _device(self, value: Any) -> Any:
        gone = (isinstance(value, str) and value.partition(":")[0] in _GONE) or (
            isinstance(value, torch.device) and value.type in _GONE
        )
        if gone or isinstance(value, Anything) or (isinstance(value, int) and not isinstance(value, bool)):
            self.replaced("CUDA", "there is no GPU; everything runs on the CPU")
            return torch.device("cpu")
        return value

    def _before(self, name: str, file: str, line: int | None, args: Any, kwargs: Any) -> dict[str, Any] | None:
        """What must be seen before the call, for the kinds that are recorded in full."""
        if name in ("add_", "sub_", "copy_") and args and not self.training.optimizers:
            self.training.moved_by_hand(args[0], file, line)
        kind = (
            "loss" if name in LOSSES
            else "softmax" if name in ("softmax", "log_softmax")
            else "draw" if name in DRAWS
            else "broadcast" if name in ARITHMETIC and _broadcasts(args)
            else "clamp" if name in ("clamp_", "clip_")
            else ""
        )  # fmt: skip
        if not kind:
            return None
        key = (file, line, name, kind)
        seen = self.times.get(key, 0)
        self.times[key] = seen + 1
        most = FULL if kind in ("loss", "draw") else 1
        if seen >= most and not (kind == "loss"):
            return None
        value: dict[str, Any] = {"kind": kind, "full": seen < most}
        if kind == "loss" and value["full"]:
            named = [
                kwargs.get("input", args[0] if args else None),
                kwargs.get("target", args[1] if len(args) > 1 else None),
            ]
            value |= {"input": summary(named[0]), "target": summary(named[1]), "kwargs": {
                k: _short(v) for k, v in kwargs.items() if k not in ("input", "target") and v is not None
            }, "reduction": _reduction(kwargs)}  # fmt: skip
            self._keep(name, file, line, seen, named, kwargs)
        elif kind == "softmax":
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            value |= {"dim": dim, "input": summary(args[0] if args else kwargs.get("input"))}
        elif kind == "broadcast":
            value["shapes"] = [list(a.shape) for a in args[:2]]
        elif kind == "clamp":
            value["parameter"] = self.training.owner_of_memory(args[0])
            value["bounds"] = [_short(a) for a in (*args[1:], *kwargs.values())]
        return value

    def _keep(self, name: str, file: str, line: int | None, seen: int, named: list[Any], kwargs: Any) -> None:
        """The first input and target at a line, for probes that compare them with what the modules were given."""
        whole = all(isinstance(t, torch.Tensor) and t.numel() <= 2_000_000 for t in named)
        if seen == 0 and whole and len(self.losses) < 12:
            copies = [t.detach().clone() for t in named]
            self.losses.append({"name": name, "file": file, "line": line, "input": copies[0], "target": copies[1],
                                "kwargs": {k: v for k, v in kwargs.items() if k not in ("input", "target")},
                                "module": _reduction(kwargs)})  # fmt: skip

    def _after(self, name: str, file: str, line: int | None, value: dict[str, Any], out: Any) -> None:
        kind = value.pop("kind")
        full = value.pop("full")
        value |= self.recorder.tick()

        def record(topic: str, subject: str, told: dict[str, Any]) -> None:
            self.recorder(topic, subject, told, file=file, line=line)

        if kind == "loss":
            number = float(out.detach()) if isinstance(out, torch.Tensor) and out.numel() == 1 else None
            value |= {"value": number, "out": list(out.shape) if isinstance(out, torch.Tensor) else None}
            if full:
                record("loss.call", name, value)
            else:
                self.last[file, line, name, kind] = value
        elif kind == "softmax":
            record("softmax.call", name, {**value, "shape": list(out.shape)})
        elif kind == "draw":
            found = summary(out) if isinstance(out, torch.Tensor) else {}
            record("random.draw", name, {**value, **found})
        elif kind == "broadcast":
            record("tensor.broadcast", name, {**value, "out": list(out.shape)})
        elif value["parameter"]:
            record("event.clamp", value.pop("parameter"), value)

    def report(self) -> None:
        """One fact per line and function, and the last value of each loss."""
        for (file, line, name, _), value in self.last.items():
            self.recorder("loss.last", name, value, file=file, line=line)
        for (file, line, name), row in self.rows.items():
            self.recorder("function.call", name, row, file=file, line=line)


def _reduction(kwargs: dict[str, Any]) -> str:
    """How a loss is reduced, also where it is said as older versions had it."""
    if kwargs.get("reduce") is False:
        return "none"
    return "sum" if kwargs.get("size_average") is False else str(kwargs.get("reduction", "mean"))


def _is_bytes(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.uint8


def _asker(frame: FrameType | None) -> FrameType | None:
    """The frame that called a torch function, behind the wrappers that torch itself puts around it."""
    while frame is not None and frame.f_code.co_filename.endswith(_WRAPPERS):
        frame = frame.f_back
    return frame


def _short(value: Any) -> Any:
    """A tensor's shape, a number, or a word."""
    if isinstance(value, torch.Tensor):
        return list(value.shape)
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, list | tuple):
        return [_short(entry) for entry in value[:6]]
    return str(value)[:60] if isinstance(value, torch.dtype | torch.device | torch.layout) else type(value).__name__


def _broadcasts(args: Any) -> bool:
    pair = [a for a in args[:2] if isinstance(a, torch.Tensor)]
    return len(pair) == 2 and pair[0].shape != pair[1].shape and min(p.numel() for p in pair) > 1


def watch_numpy(recorder: Recorder) -> None:
    """Random numbers that come from numpy are draws too."""
    for name in ("normal", "uniform", "randn", "rand", "random", "standard_normal", "randint", "choice"):
        original = getattr(np.random, name)

        def drawn(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            out = _original(*args, **kwargs)
            file, line = recorder.here()
            if line is not None and recorder.counts["random.draw"] < 300:
                array = np.asarray(out, dtype=np.float64) if np.asarray(out).dtype.kind in "fiu" else np.zeros(1)
                value = {
                    **recorder.tick(), "shape": list(array.shape),
                    "mean": float(array.mean()), "std": float(array.std()),
                    "min": float(array.min(initial=np.inf)), "max": float(array.max(initial=-np.inf)),
                }  # fmt: skip
                recorder("random.draw", f"numpy.{_name}", value, file=file, line=line)
            return out

        setattr(np.random, name, drawn)
