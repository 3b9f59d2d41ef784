"""Key-value cache: what a Transformer has computed of the tokens that it has read, kept for the tokens to come.

Its memory is taken once, for all the tokens there will be; reading a token writes its keys and values at their place,
so that a step costs no more copies late than early.  A state is written to in place: whoever holds it holds what was
read last.  No gradient flows through it.

Rows that joined one another at different lengths (``beside``) end at the same place and begin at their own:

    place         0 1 2 3 4 5 6
    begin = 0     a b c d e f g
    begin = 4     - - - - h i j        what stands before a row's beginning is zero, and no token of it looks there
"""

import torch
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
        begin: Int[Tensor, " n"] | None = None,
    ):
        # Of a head first all keys, then all values: so (n, head) is one batch dimension to a matrix product, without
        # a copy, and both are reordered in one go.
        self.keys_values = keys_values
        self.n_read = n_read
        self.step = step
        """Reads one token per row faster than the network itself; None where it cannot."""
        self.begin = begin
        """The place of each row's first token; None: 0 for all.  Such rows are read by ``step`` alone."""

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
        """Places that no chosen row uses are given up."""
        begin = None if self.begin is None else self.begin[index]
        unused = 0 if begin is None or not len(begin) else int(begin.min())
        old, n_read = self.keys_values, self.n_read - unused
        new = old.new_empty(old.shape[0], len(index), *old.shape[2:])
        new[..., :n_read, :] = old[..., unused : self.n_read, :].index_select(1, index)
        return KVCache(new, n_read, self.step, None if begin is None or not (begin > unused).any() else begin - unused)

    def beside(self, other: SequenceState) -> "KVCache":
        assert isinstance(other, KVCache) and other.length == self.length, "states for rows of one length"
        states = (self, other)
        old, n_read = self.keys_values, max(self.n_read, other.n_read)
        counts = [one.keys_values.shape[1] for one in states]
        new = old.new_empty(old.shape[0], sum(counts), *old.shape[2:])
        for part, one in zip(new.split(counts, 1), states, strict=True):
            first = n_read - one.n_read
            part[..., :first, :] = 0
            part[..., first:n_read, :] = one.keys_values[..., : one.n_read, :]
        begin = torch.cat([n_read - one.n_read + one.begins() for one in states])
        return KVCache(new, n_read, self.step, begin)

    def begins(self) -> Int[Tensor, " n"]:
        """The place of each row's first token."""
        n, device = self.keys_values.shape[1], self.keys_values.device
        return torch.zeros(n, dtype=torch.long, device=device) if self.begin is None else self.begin
