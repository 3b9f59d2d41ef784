"""Every rule, by what it is about.  Importing this package registers them all."""

from bowerbird.diagnosis.rule import RULES, find, ranked
from bowerbird.diagnosis.rules import (
    adversarial,
    generalisation,
    inputs,
    latent,
    motion,
    optimisation,
    sequences,
    sound,
    system,
)

__all__ = ["RULES", "adversarial", "find", "generalisation", "inputs", "latent", "motion", "optimisation", "ranked",
           "sequences", "sound", "system"]  # fmt: skip
