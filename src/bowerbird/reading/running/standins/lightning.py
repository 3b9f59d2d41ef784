"""Modules of Lightning, and a trainer that takes a few steps with them."""

import argparse
import inspect
import sys
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.standins.anything import Anything

STEPS = 3


class LightningModule(nn.Module):
    """A module whose steps can be taken: what it logs is kept nowhere, its optimisers are made when they are asked
    for."""

    automatic_optimization = True
    current_epoch = global_step = 0
    device = torch.device("cpu")
    trainer = Anything("trainer")
    logger = Anything("logger")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.__dict__["hparams"] = argparse.Namespace()

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Keeps what the constructor was given."""
        frame = sys._getframe(1)
        given = {name: value for name, value in frame.f_locals.items() if name not in ("self", "__class__")}
        vars(self.hparams).update(given | given.get("kwargs", {}))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def optimizers(self, *args: Any, **kwargs: Any) -> Any:
        """The optimisers of the module: one, or a list."""
        made: list[Any] = self.__dict__.get("_made") or _optimisers(self.configure_optimizers())
        self.__dict__["_made"] = made
        return (made[0] if len(made) == 1 else made) if made else Anything("optimizers")

    def lr_schedulers(self) -> Any:
        return Anything("scheduler")

    def manual_backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        loss.backward(*args, **kwargs)

    def log(self, *args: Any, **kwargs: Any) -> None:
        pass

    log_dict = print = toggle_optimizer = untoggle_optimizer = clip_gradients = log

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Any:
        return cls(**{name: value for name, value in kwargs.items() if name not in ("map_location", "strict")})

    def freeze(self) -> None:
        self.requires_grad_(False).eval()


def _optimisers(made: Any) -> list[Any]:
    """The optimisers among what ``configure_optimizers`` answers, in any of its forms."""
    if isinstance(made, dict):
        return _optimisers(made.get("optimizer"))
    if isinstance(made, list | tuple):
        return [optimiser for part in made for optimiser in _optimisers(part)]
    return [made] if isinstance(made, torch.optim.Optimizer) else []


class Trainer:
    """Takes a few training steps on the batches of a loader."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.logged_metrics: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(f"trainer.{name}")

    def fit(self, model: LightningModule, train_dataloaders: Any = None, *args: Any, **kwargs: Any) -> None:
        """Steps of each optimiser in turn, as the module takes them by itself or the trainer for it."""
        holder: Any = train_dataloaders if train_dataloaders is not None else kwargs.get("datamodule", model)
        loader = holder.train_dataloader() if hasattr(holder, "train_dataloader") else holder
        optimisers: Any = model.optimizers()
        optimisers = optimisers if isinstance(optimisers, list) else [optimisers]
        model.train()
        for number, batch in zip(range(STEPS), loader, strict=False):
            for place, optimiser in enumerate(optimisers if model.automatic_optimization else [None]):
                step: Any = model.training_step
                answer = step(*(batch, number, place)[: len(inspect.signature(step).parameters)])
                loss = answer.get("loss") if isinstance(answer, dict) else answer
                if optimiser is not None and isinstance(loss, torch.Tensor):
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()


class LightningDataModule:
    """Data by methods that the program defines."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.hparams = argparse.Namespace()

    save_hyperparameters = LightningModule.save_hyperparameters


class Callback:
    """Accepted."""


def seed_everything(seed: int = 0, *args: Any, **kwargs: Any) -> int:
    """Seeds the generator of random numbers."""
    torch.manual_seed(seed)
    return seed


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return sys.modules[__name__] if name in ("pytorch", "core", "module") else Anything(f"lightning.{name}")
