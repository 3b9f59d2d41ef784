"""What a network can be asked to be.

Networks have no objective.  A family asks a ``NetConfig`` for a role, and the config answers with a module or says
in one sentence that this architecture cannot play it:

    denoiser(spec, channels_out)   (x_t, t, given) → (n, channels_out, h, w);  t is float (n,)
    encoder(spec, n_out)           (x, given)      → (n, n_out)
    decoder(spec, n_in, channels_out)  (z, given)  → (n, channels_out, h, w), no final non-linearity
    grid_encoder(spec, n_out)          x → (n, n_out, rows, columns), whose ``grid`` is (rows, columns)
    grid_decoder(spec, n_in, channels_out)  (n, n_in, rows, columns) → (n, channels_out, h, w), as the decoder
    language_model(vocab_size, context)              a ``SequenceNet``
    translator(vocab_size, source_context, context)  a ``TranslationNet``

``given`` maps names of ``spec.given`` to tensors with n rows; the roles that have it read it through
``bowerbird.nets.conditioning.Conditioner``, the only place that knows its kinds.  What is absent counts as not given.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bowerbird import config
from bowerbird.errors import BowerbirdError
from bowerbird.spec import Spec


@dataclass(frozen=True)
class NetConfig(config.NetworkConfig):
    """Base of all networks' hyperparameters."""

    channels_last = False
    """Whether convolutions run faster with this layout in this architecture (a class attribute, measured)."""

    def denoiser(self, spec: Spec, channels_out: int) -> nn.Module:
        raise self._cannot("a denoiser", "unet, dit or mlp")

    def encoder(self, spec: Spec, n_out: int) -> nn.Module:
        raise self._cannot("an encoder or discriminator", "convnet or mlp")

    def decoder(self, spec: Spec, n_in: int, channels_out: int) -> nn.Module:
        raise self._cannot("a decoder or generator", "convnet or mlp")

    def grid_encoder(self, spec: Spec, n_out: int) -> Any:
        raise self._cannot("an encoder into a grid", "convnet")

    def grid_decoder(self, spec: Spec, n_in: int, channels_out: int) -> nn.Module:
        raise self._cannot("a decoder of a grid", "convnet")

    def code_shape(self, spec: Spec, size: int) -> tuple[int, int, int]:
        """How the ``size`` numbers that an encoder makes are arranged: (numbers per position, rows, columns)."""
        return size, 1, 1

    def language_model(self, vocab_size: int, context: int) -> "SequenceNet":
        raise self._cannot("a language model", "transformer or rnn")

    def translator(self, vocab_size: int, source_context: int, context: int) -> "TranslationNet":
        raise self._cannot("a translator", "transformer")

    def _cannot(self, role: str, instead: str) -> BowerbirdError:
        name = type(self).__name__.removesuffix("Config").lower()
        return BowerbirdError(f"The net {name} cannot be {role}; use {instead}.")


class SequenceState(ABC):
    """What a network remembers of the tokens that it has read: keys and values, or a recurrent state."""

    @abstractmethod
    def detached(self) -> "SequenceState":
        """The same state, through which no gradient flows back."""

    @abstractmethod
    def rows(self, index: Tensor) -> "SequenceState":
        """The state of the chosen rows, in that order; a row may be chosen more than once."""

    def beside(self, other: "SequenceState") -> "SequenceState":
        """The rows of this state, then those of another, which may have read more or fewer tokens."""
        raise BowerbirdError(f"{type(self).__name__} cannot take in rows while others go on.")


class SequenceNet(nn.Module, ABC):
    """Tokens → logits of the next token at every position, each from the tokens up to it alone."""

    recurrent = False
    """Whether the state is of one size, however many tokens were read, so that rows may have any length and be read in
    segments (a class attribute)."""

    @abstractmethod
    def forward(
        self,
        tokens: Int[Tensor, "n length"],
        state: SequenceState | None = None,
        document: Int[Tensor, "n length"] | None = None,
    ) -> tuple[Float[Tensor, "n length vocab"], SequenceState | None]:
        """Logits after each token, and the state after the last.

        Without ``state`` the sequence begins here; a Transformer then returns no state.  With a state from
        ``initial_state`` or an earlier call it goes on.  ``document`` numbers the documents of packed rows, which do
        not see one another (Transformers only).
        """

    @abstractmethod
    def initial_state(self, n: int, length: int) -> SequenceState:
        """The state before the first token, with room for ``length`` tokens."""


class TranslationNet(nn.Module, ABC):
    """(source, tokens of the target so far) → logits of its next token."""

    @abstractmethod
    def encode(self, source: Int[Tensor, "n source"], is_source: Bool[Tensor, "n source"]) -> "Memory":
        """What the decoder has to know of the source; ``is_source`` is False on padding."""

    @abstractmethod
    def forward(
        self, tokens: Int[Tensor, "n length"], memory: "Memory", state: SequenceState | None = None
    ) -> tuple[Float[Tensor, "n length vocab"], SequenceState | None]:
        """As ``SequenceNet``, given the source."""

    @abstractmethod
    def initial_state(self, n: int, length: int) -> SequenceState:
        """The state before the first token, with room for ``length`` tokens."""


class Memory(NamedTuple):
    """An encoded source."""

    hidden: tuple[Tensor, ...]
    """What the decoder looks at, as the network likes it: the first dimension of every tensor is n."""
    is_source: Bool[Tensor, "n source"]

    def rows(self, index: Tensor) -> "Memory":
        return Memory(tuple(hidden[index] for hidden in self.hidden), self.is_source[index])
