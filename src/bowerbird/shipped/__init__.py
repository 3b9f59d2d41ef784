"""Trained runs that travel with the package, so that something can be made at once: ``bowerbird sample poem``.

Each is a run folder with only what sampling needs: run.toml, model.safetensors in half precision, tokenizer.json where
there are tokens, and a README with the recipe, the licence of the data, and the measured figures that run.toml claims.
``make shipped`` trains them again.  Imports no torch.
"""

import os
from pathlib import Path

FOLDER = Path(__file__).parent


def runs() -> dict[str, Path]:
    """The folder of each by its name."""
    return {toml.parent.name: toml.parent for toml in sorted(FOLDER.glob("*/run.toml"))}


def folder_of(run: Path | str) -> Path:
    """The folder that a user means by ``run``: one that exists, before a run that ships and has this name."""
    path = Path(run)
    return path if os.path.exists(path) else runs().get(str(run), path)


def place_beside(run: Path | str, what: str) -> Path:
    """Where to write what is made of a run: inside its folder, but for one that ships in the working directory."""
    folder = folder_of(run)
    return Path(what) / folder.name if folder.parent == FOLDER else folder / what
