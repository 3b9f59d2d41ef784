"""What a run is, as plain data: frozen dataclasses, TOML in and out.  Imports no torch.

A recipe or ``run.toml`` has the tables ``[model]`` (with ``family`` and, inside, ``[model.net]`` with ``name``),
``[data]``, ``[train]`` and any number of ``[[expect]]``.  Every key is a field below or in the family's own
dataclass; any other key is an error that names the nearest field.
"""

from bowerbird.config.fields import Data, Expect, ModelConfig, Music, NetworkConfig, Run, Speech, Text, Train, Video
from bowerbird.config.loading import RECIPES, find, load, recipe, recipe_names, recipe_title, recipes
from bowerbird.config.tables import build, flat, model_from, run_from, to_table, with_settings
from bowerbird.config.toml import dumps, read_toml

__all__ = [
    "RECIPES",
    "Data",
    "Expect",
    "ModelConfig",
    "Music",
    "NetworkConfig",
    "Run",
    "Speech",
    "Text",
    "Train",
    "Video",
    "build",
    "dumps",
    "find",
    "flat",
    "load",
    "model_from",
    "read_toml",
    "recipe",
    "recipe_names",
    "recipe_title",
    "recipes",
    "run_from",
    "to_table",
    "with_settings",
]
