"""A checkpoint of a trainer: what is kept of it, and how it is put back.

Everything that a step depends on is a tensor here or a counter.  Random numbers and the order of examples follow from
the counters, so there is no other state.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from bowerbird.data.tensorfile import Damaged
from bowerbird.errors import BowerbirdError
from bowerbird.training.rundir import SavedState

if TYPE_CHECKING:
    from bowerbird.training.trainer import Trainer


def save(trainer: "Trainer") -> None:
    """Writes the weights to use and the state that resuming needs.

    The first state is written before the first weights, so that weights without a state have lost it; afterwards the
    weights come first, so that a state that says "finished" is never ahead of them.
    """
    parts = [_save_weights, _save_state]
    for part in parts if trainer.rundir.state_file.is_file() else reversed(parts):
        part(trainer)


def _save_weights(trainer: "Trainer") -> None:
    with trainer.average.applied():
        weights, adapters = contiguous(trainer.model.weights()), contiguous(trainer.model.adapters())
        trainer.rundir.save_model(weights, trainer.data.spec, trainer.step, adapters)


def _save_state(trainer: "Trainer") -> None:
    tensors = {f"model/{name}": value for name, value in trainer.model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in trainer.average.average.items()}
    for player in trainer.players.values():
        tensors |= {f"optimizer/{name}": value for name, value in player.state().items()}
    trainer.rundir.save_state(contiguous(tensors), counters(trainer), trainer.record)


def counters(trainer: "Trainer") -> dict[str, Any]:
    """How far a run has come and what it has cost."""
    return {
        "step": trainer.step,
        "examples": trainer.examples,
        "flops": trainer.flops,
        "parameters": trainer.cost.parameters,
        "finished": trainer.used() >= 1,
        "joules": trainer.joules_before + trainer.meter.joules(),
        "energy": trainer.meter.source,
        **trainer.clock.counters(),
    }


def restore(trainer: "Trainer", saved: SavedState) -> None:
    """Puts the trainer where the checkpoint was written; BowerbirdError if its tensors are of another model."""
    if saved.note:
        trainer.progress.warn(f"  note   {saved.note}")

    def part(prefix: str) -> dict[str, Tensor]:
        """Tensors of the file itself, which are copied; optimisers keep single numbers as they are given."""
        found = {k.removeprefix(prefix): v for k, v in saved.tensors.items() if k.startswith(prefix)}
        return {name: (value if value.ndim else value.clone()).to(trainer.device) for name, value in found.items()}

    weights, average = part("model/"), part("average/")
    _require_fit(trainer, weights)
    trainer.model.load_state_dict(weights)
    for name in trainer.average.average.keys() & average.keys():
        trainer.average.average[name].copy_(average[name])
    if _same_optimizers(trainer, saved):
        _restore_optimizers(trainer, part("optimizer/"))
    trainer.step, trainer.examples = saved.counters["step"], saved.counters["examples"]
    trainer.flops = saved.counters["flops"]
    trainer.clock.load(saved.counters)
    trainer.joules_before = saved.counters.get("joules", 0.0)
    trainer.rundir.truncate_metrics(trainer.step)


def _require_fit(trainer: "Trainer", weights: dict[str, Tensor]) -> None:
    own = trainer.model.state_dict()
    there, here = ({name: tuple(value.shape) for name, value in one.items()} for one in (weights, own))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise BowerbirdError(
                f"The weights of {trainer.rundir.path} no longer fit: '{name}' is {there.get(name, 'missing')} "
                f"in the checkpoint and {here.get(name, 'missing')} in the model of run.toml. Undo the change, or "
                f"start a new run from its weights with --start {trainer.rundir.path}."
            )


def _same_optimizers(trainer: "Trainer", saved: SavedState) -> bool:
    """Whether the optimisers' state is of the same kind and parameters; if not, they start anew."""
    before, now = (record.get("run", {}).get("train", {}) for record in (saved.record, trainer.record))
    return not before or all(before.get(key) == now.get(key) for key in ("optimizer", "freeze"))


def _restore_optimizers(trainer: "Trainer", tensors: dict[str, Tensor]) -> None:
    try:
        for player in trainer.players.values():
            player.load_state(tensors)
    except (KeyError, ValueError, RuntimeError, IndexError) as error:  # only in files without a checksum
        raise Damaged(f"The state of {trainer.rundir.path} is damaged: {error}.") from error


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in tensors.items()}
