"""What actions need of a model, each as a sentence's end that says what it lacks; empty if it lacks nothing."""

from typing import Any

from bowerbird.models.base import Denoises, Encodes, Infers, Inverts
from bowerbird.spec import Tensors


def pictures(model: Any) -> str:
    """Pictures, and not from other pictures."""
    target = model.spec.target
    if model.spec.medium != "image" or not isinstance(target, Tensors) or len(target.shape) != 3:
        return f"it makes {model.spec.medium}, not pictures"
    return ""


def no_source(model: Any) -> str:
    if any(isinstance(field, Tensors) for field in model.spec.given.values()):
        return "it makes pictures from pictures"
    return ""


def denoises(model: Any) -> str:
    """A diffusion or flow model of pictures."""
    lacks = "" if isinstance(model, Denoises) else "it is not a diffusion or flow model"
    return pictures(model) or no_source(model) or lacks


def encodes(model: Any) -> str:
    """Noise or a code can be found for a picture."""
    lacks = "" if isinstance(model, Inverts | Encodes) else "it cannot find the latent code of a picture"
    return pictures(model) or no_source(model) or lacks


def infers(model: Any) -> str:
    """A variational autoencoder."""
    lacks = "" if isinstance(model, Encodes) and isinstance(model, Infers) else "it has no encoder with a distribution"
    return pictures(model) or no_source(model) or lacks


def draws(model: Any) -> str:
    """Pictures begin as noise."""
    return pictures(model) or no_source(model)


def translates(model: Any) -> str:
    """Pictures from pictures."""
    return pictures(model) or ("" if no_source(model) else "it was not trained to make pictures from pictures")
