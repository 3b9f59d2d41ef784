"""Our diagnosis and our measurements inside training loops that are not ours.

    loop           what is seen of a loop: losses, gradients, updates, samples; written into a folder like a run's
    lightning      a callback for PyTorch Lightning
    huggingface    a callback for the Trainer of transformers

Each is imported where it is needed: ``from bowerbird.integrations.lightning import LightningWatch``.
"""

from bowerbird.integrations.loop import LoopWatch, Probes

__all__ = ["LoopWatch", "Probes"]
