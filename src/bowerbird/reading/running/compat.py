"""Lets programs written for other machines and older versions run here: CUDA, removed names, compilers, processes."""

import argparse
import builtins
import functools
import inspect
import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.utils.model_zoo
from torch import nn
from torch.optim import Optimizer

from bowerbird.reading.running.putting import put
from bowerbird.reading.running.standins import fragments, six
from bowerbird.reading.running.standins.anything import Anything
from bowerbird.reading.running.standins.modules import StandInNet

Replace = Callable[[str, str], None]


def install(replace: Replace) -> None:
    """Patches torch, numpy and argparse in this process."""
    _cuda(replace)
    _distributed(replace)
    _compilers()
    _old_names()
    _arguments(replace)
    _saved_weights(replace)
    _input(replace)
    _tensors(replace)
    _layers(replace)


def _layers(replace: Replace) -> None:
    """A layer whose class is not there becomes a stand-in network."""
    add = nn.Module.add_module

    def added(module: nn.Module, name: str, layer: Any) -> None:
        if isinstance(layer, Anything):
            replace(f"layer {layer}", "its class is not there; a network that scales its input took its place")
            layer = StandInNet()
        add(module, name, layer)

    put(nn.Module, add_module=added)


def _cuda(replace: Replace) -> None:
    def moved(thing: Any, *_: Any, **__: Any) -> Any:
        replace("CUDA", "there is no GPU; everything runs on the CPU")
        return thing

    put(nn.Module, cuda=moved)
    original = nn.Module.to

    def to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        return original(module, *(_cpu(a, replace) for a in args), **{k: _cpu(v, replace) for k, v in kwargs.items()})

    put(nn.Module, to=to)
    cuda: Any = torch.cuda
    nothing = {name: _returns(None) for name in _CUDA_NOTHING}
    for name, value in {**nothing, **_CUDA_VALUES}.items():
        setattr(cuda, name, value)
    for kind in ("Float", "Double", "Half", "Long", "Int", "Byte", "Bool"):
        setattr(cuda, f"{kind}Tensor", getattr(torch, f"{kind}Tensor"))
    cuda.get_device_name = _returns("CPU")
    cuda.get_device_properties = lambda *a, **k: argparse.Namespace(name="CPU", total_memory=0, multi_processor_count=1)
    for name in ("Stream", "stream", "current_stream", "default_stream", "Event"):
        setattr(cuda, name, Anything(f"torch.cuda.{name}"))
    put(torch.Tensor, record_stream=_returns(None))
    put(torch, set_default_device=lambda device: None)
    default_type = torch.set_default_tensor_type

    def default(kind: Any) -> None:
        default_type(kind.replace("torch.cuda.", "torch.") if isinstance(kind, str) else kind)

    put(torch, set_default_tensor_type=default)
    _mixed_precision()


def _distributed(replace: Replace) -> None:
    """One process: groups are not made, what would be exchanged stays as it is, and a wrapper is what it wraps."""

    def begun(*_: Any, **__: Any) -> None:
        replace("torch.distributed", "there is one process; nothing is exchanged")

    put(torch, _six=six)
    set_variable = os.environ.__class__.__setitem__
    put(os.environ.__class__, __setitem__=lambda self, key, value: set_variable(self, key, str(value)))
    dist: Any = torch.distributed
    nothing = dict.fromkeys(("barrier", "all_reduce", "broadcast", "reduce", "destroy_process_group"), _exchanged)
    put(dist, init_process_group=begun, get_rank=_returns(0), get_world_size=_returns(1), **nothing)
    put(dist, all_gather=_gathered)
    put(torch.multiprocessing, spawn=lambda function, args=(), **_: function(0, *args))
    put(nn.parallel, DistributedDataParallel=_Wrapper)


def _exchanged(*_: Any, async_op: bool = False, **__: Any) -> Any:
    """What an exchange returns: a handle that is done, where the program means to wait for it."""
    handle: Any = torch.futures.Future()
    handle.set_result(None)
    return handle if async_op else None


def _gathered(parts: list[torch.Tensor], own: torch.Tensor, *_: Any, **settings: Any) -> Any:
    parts[0].copy_(own)
    return _exchanged(**settings)


class _Wrapper(nn.Module):
    """What ``DistributedDataParallel`` is to one process."""

    def __init__(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


_CUDA_NOTHING = (
    "synchronize empty_cache set_device manual_seed manual_seed_all reset_peak_memory_stats init ipc_collect"
).split()


def _returns(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


_CUDA_VALUES = {
    name: _returns(0)
    for name in "current_device memory_allocated memory_reserved max_memory_allocated max_memory_reserved".split()
}


def _cpu(value: Any, replace: Replace) -> Any:
    kind = value.type if isinstance(value, torch.device) else value.partition(":")[0] if isinstance(value, str) else ""
    number = isinstance(value, int) and not isinstance(value, bool)
    if kind in ("cuda", "mps", "xpu", "npu") or number or isinstance(value, Anything):
        replace("CUDA", "there is no GPU; everything runs on the CPU")
        return torch.device("cpu")
    return value


class _NoScaler(torch.amp.GradScaler):
    """A gradient scaler that does not scale: mixed precision is for GPUs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu", enabled=False)


def _mixed_precision() -> None:
    scaler: Any = _NoScaler
    put(torch.cuda.amp, GradScaler=scaler)
    put(torch.amp, GradScaler=scaler)
    real = torch.autocast

    class Autocast(real):  # type: ignore[misc, valid-type]
        """Autocast that is off: half precision on a CPU tells nothing about the program."""

        def __init__(self, device_type: str = "cpu", *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu", enabled=False)

    for holder, name in ((torch, "autocast"), (torch.amp, "autocast"), (torch.cuda.amp, "autocast")):
        setattr(holder, name, Autocast)


def _compilers() -> None:
    def unchanged(model: Any = None, *args: Any, **kwargs: Any) -> Any:
        return model if model is not None else lambda function: function

    put(torch, compile=unchanged)
    put(torch.jit, script=unchanged)
    put(torch.jit, trace=lambda function, *a, **k: function)
    put(torch.autograd, set_detect_anomaly=lambda *a, **k: None)
    put(torch, set_num_threads=lambda n: None)
    put(torch, use_deterministic_algorithms=lambda *a, **k: None)


def uncompiled_optimisers() -> None:
    """Takes off what keeps torch.compile out of optimisers: its first call would import all of the compiler, which
    costs two seconds of every execution."""
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        put(Optimizer, **{name: inspect.unwrap(getattr(Optimizer, name))})
    for kind in Optimizer.__subclasses__():
        put(kind, step=_with_gradients_as_asked(inspect.unwrap(kind.step)))


def _with_gradients_as_asked(step: Callable[..., Any]) -> Callable[..., Any]:
    """What torch wraps the steps of its own optimisers in, without the compiler."""

    @functools.wraps(step)
    def stepped(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(optimizer.defaults.get("differentiable", False)):
            return step(optimizer, *args, **kwargs)

    return stepped


def _old_names() -> None:
    removed: dict[str, Any] = {"int": int, "float": float, "bool": bool, "object": object, "str": str}
    removed |= {"float_": np.float64, "Inf": np.inf, "NaN": np.nan, "infty": np.inf}
    for name, kind in removed.items():
        if name not in np.__dict__:
            setattr(np, name, kind)


def _tensors(replace: Replace) -> None:
    """``x.to(device)`` where the device came from a package that is not there."""
    original = torch.Tensor.to

    def to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if any(isinstance(a, Anything) for a in args):
            args = tuple(_cpu(a, replace) if isinstance(a, Anything) else a for a in args)
        return original(tensor, *args, **kwargs)

    put(torch.Tensor, to=to)


def _arguments(replace: Replace) -> None:
    """Required arguments that are not there get the value that their name suggests."""
    parse = argparse.ArgumentParser.parse_known_args

    @functools.wraps(parse)
    def parsed(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        missing = []
        for action in parser._actions:
            needed = action.required or (not action.option_strings and action.nargs not in ("?", "*"))
            if needed:
                action.required = False
                if not action.option_strings and action.nargs is None:
                    action.nargs = "?"
                missing.append(action)
        found, rest = parse(parser, [] if args is None else args, namespace)
        for action in missing:
            if getattr(found, action.dest, None) is None and action.dest != argparse.SUPPRESS:
                value = _of_type(action)
                setattr(found, action.dest, value)
                replace(f"--{action.dest}", f"the argument is required; {value!r} was taken")
        return found, rest

    put(argparse.ArgumentParser, parse_known_args=parsed)


def _of_type(action: argparse.Action) -> Any:
    if action.choices:
        return next(iter(action.choices))
    value = fragments.setting(action.dest)
    convert: Any = action.type
    if callable(convert):
        for candidate in (value, 1, "1"):
            try:
                return convert(candidate)
            except (TypeError, ValueError):
                continue
    return value


class MissingWeights(dict[str, Any]):
    """What stands for a checkpoint that is not there: loading it leaves a module as it is, and it accepts every use."""

    def __getitem__(self, key: Any) -> Any:
        return waves()[key] if isinstance(key, slice | tuple) else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self


def waves() -> np.ndarray:
    """Sine waves of different phase, for data that was saved as a tensor."""
    return np.sin(np.arange(200)[None] / 20 + np.arange(32)[:, None])


def _saved_weights(replace: Replace) -> None:
    load, load_state = torch.load, nn.Module.load_state_dict

    def loaded(file: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            kwargs["map_location"] = "cpu"
            kwargs["weights_only"] = True
            return load(file, *args[1:], **kwargs)
        except (OSError, EOFError, pickle.UnpicklingError, AttributeError) as error:
            if not isinstance(error, PermissionError):
                replace(f"checkpoint {str(file)[-60:]}", "the file is not there; modules keep their initial weights")
                return MissingWeights()
            raise

    def state_loaded(module: nn.Module, state: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(state, MissingWeights):
            return None
        return load_state(module, state, *args, **kwargs)

    def downloaded(url: str, *args: Any, **kwargs: Any) -> Any:
        replace(f"download {url[-60:]}", "there is no network; modules keep their initial weights")
        return MissingWeights()

    put(torch.hub, load_state_dict_from_url=downloaded)
    put(torch.utils.model_zoo, load_url=downloaded)
    put(torch, load=loaded)
    put(nn.Module, load_state_dict=state_loaded)
    optimizer_load = torch.optim.Optimizer.load_state_dict

    def optimizer_loaded(optimizer: Any, state: Any) -> None:
        if not isinstance(state, MissingWeights):
            optimizer_load(optimizer, state)

    put(torch.optim.Optimizer, load_state_dict=optimizer_loaded)


def _input(replace: Replace) -> None:
    """``input()`` answers by itself."""
    asked = 0

    def answered(prompt: object = "") -> str:
        nonlocal asked
        asked += 1
        replace("input()", "nobody is asked; the answer is '1'")
        if asked > 3:
            raise EOFError("no more input")
        return "1"

    put(builtins, input=answered)
