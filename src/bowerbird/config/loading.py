"""The recipes that come with Bowerbird, and runs from files like them."""

from pathlib import Path

from bowerbird import trust
from bowerbird.config.fields import Data, Run
from bowerbird.config.tables import run_from
from bowerbird.config.toml import read_toml
from bowerbird.errors import BowerbirdError, unknown

RECIPES = Path(__file__).parents[1] / "recipes"


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe_title(name: str) -> str:
    return str(read_toml(RECIPES / f"{name}.toml").get("title", ""))


def recipes() -> list[dict[str, str]]:
    """Name, family, title and data of every recipe; reads TOML only, no model is imported."""
    rows = []
    for name in recipe_names():
        table = read_toml(RECIPES / f"{name}.toml")
        model, data = table.get("model", {}), table.get("data", {})
        row = {"family": model.get("family"), "title": table.get("title"), "data": data.get("source", Data.source)}
        rows.append({"name": name} | {key: str(value or "") for key, value in row.items()})
    return rows


def recipe(name: str) -> str:
    """The TOML text of a recipe, with its comments."""
    return find(name).read_text(encoding="utf-8")


def find(name_or_path: str) -> Path:
    """A recipe's name, or a path to a TOML file or to a run folder, as a file."""
    path = Path(name_or_path)
    if path.is_dir() and (path / "run.toml").is_file():
        return path / "run.toml"
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise BowerbirdError(f"There is no file {path}.")
    recipe = RECIPES / f"{name_or_path}.toml"
    if not recipe.is_file() and path.exists():
        raise BowerbirdError(
            f"{path} is not a recipe; if it is your data, name a recipe first: bowerbird train flow --data {path}"
        )
    if not recipe.is_file():
        raise unknown("recipe", name_or_path, recipe_names())
    return recipe


def load(name_or_path: str, *, allow_plugin: bool = False) -> Run:
    """The run that a recipe or a TOML file describes; a relative ``plugin`` lies beside that file.

    BowerbirdError for a plugin that the user does not trust yet, unless ``allow_plugin``: it is code.
    """
    path = find(name_or_path)
    table = read_toml(path)
    if isinstance(plugin := table.get("plugin"), str) and plugin:
        table["plugin"] = str((path.parent / plugin).resolve())
    with trust.allowing(allow_plugin):
        return run_from(table, str(path))
