"""Whether what training made of a module is in its ``state_dict``: saved and loaded, it would be the same module."""

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import beside_state, signature, tensors
from bowerbird.reading.running.probes import probe


@probe("state")
def state(live: Live) -> None:
    """Tensors beside the state that training changed and that answers depend on, for each root module."""
    for name, root in live.roots.items():
        given = live.inputs(root)
        if given is None or id(root) not in live.carried or not any(True for _ in root.parameters()):
            continue
        lost = [path for path in _changed(live, root) if _matters(live, root, given, path)]
        said = "all that training changed and outputs depend on is in state_dict()"
        if lost:
            said = f"training changed `{lost[0]}`, outputs depend on it, and state_dict() does not hold it"
        holder = root.get_submodule(lost[0].rpartition(".")[0]) if lost else root
        live.record("property.state", name, {"holds": not lost, "said": said, "lost": lost},
                    at=type(holder))  # fmt: skip


def _changed(live: Live, root: nn.Module) -> list[str]:
    before = live.carried[id(root)]
    return [path for path, tensor in beside_state(root) if path in before and signature(tensor) != before[path]]


def _matters(live: Live, root: nn.Module, given: tuple[tuple[object, ...], dict[str, object]], path: str) -> bool:
    """Whether an answer in evaluation depends on it, and does not itself change it (as a cache would be)."""
    tensor = dict(beside_state(root))[path]
    kept = tensor.detach().clone()
    with live.frozen(root), torch.no_grad():
        root.eval()
        try:
            live.seed(0)
            one = tensors(live.call(root, *given[0], **given[1]))
            now = dict(beside_state(root)).get(path)
            if now is not tensor or signature(tensor) != signature(kept):
                return False
            tensor.data.copy_(kept * 0.5 + 0.1)
            live.seed(0)
            other = tensors(live.call(root, *given[0], **given[1]))
        except Exception:  # it wants other arguments now
            return False
        finally:
            tensor.data.copy_(kept)
    return any(a.shape == b.shape and not torch.equal(a, b) for a, b in zip(one, other, strict=False))
