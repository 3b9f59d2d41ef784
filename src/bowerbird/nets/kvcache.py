"""Key-value cache: what a Transformer has computed of the tokens that it has read, kept for the tokens to come.

Its memory is taken once, for all the tokens there will be; reading a token writes its keys and values at their place,
so that a step costs no more copies late than early.  A state is written to in place: whoever holds it holds what was
read last.  No gradient flows through it.
"""

from jaxtyping import Float, Int
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.nets.roles import SequenceState
from bowerbird.nets.step import TokenStep


class KVCache(SequenceState):
    """Keys and values of all layers, and how many tokens they are of."""

    def __init__(
        self,
        keys_values: Float[Tensor, "n_layer n n_kv_head 2 length d"],
        n_read: int = 0,
        step: TokenStep | None = None,
    ):
        # Of a head first all keys, then all values: so (n, head) is one batch dimension to a matrix product, without
        # a copy, and both are reordered in one go.
        self.keys_values = keys_values
        self.n_read = n_read
        self.step = step
        """Reads one token per row faster than the network itself; None where it cannot."""

    @property
    def length(self) -> int:
        """Tokens that there is room for."""
        return self.keys_values.shape[4]

    def check_room(self, token: int) -> None:
        if self.n_read + token > self.length:
            raise BowerbirdError(
                f"The state has room for {self.length} tokens, but {self.n_read + token} are to be read; ask "
                "initial_state for more."
            )

    def append(
        self, layer: int, k: Float[Tensor, "n n_kv_head token d"], v: Float[Tensor, "n n_kv_head token d"]
    ) -> tuple[Float[Tensor, "n n_kv_head key d"], Float[Tensor, "n n_kv_head key d"]]:
        """All keys and values of a layer, the new tokens' last.  ``n_read`` moves on when every layer has its own."""
        end = self.n_read + k.shape[2]
        cache = self.keys_values[layer]
        cache[:, :, 0, self.n_read : end] = k
        cache[:, :, 1, self.n_read : end] = v
        return cache[:, :, 0, :end], cache[:, :, 1, :end]

    def detached(self) -> "KVCache":
        return self

    def rows(self, index: Int[Tensor, " m"]) -> "KVCache":
        old = self.keys_values
        new = old.new_empty(old.shape[0], len(index), *old.shape[2:])
        new[..., : self.n_read, :] = old[..., : self.n_read, :].index_select(1, index)
        return KVCache(new, self.n_read, self.step)
