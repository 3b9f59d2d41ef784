"""The shape of the code base: who may import whom, the public names, and the packages that are declared.

The direction between layers is checked by import-linter (``make lint``, contracts in pyproject.toml).  Here are the
rules that it cannot state, and that its contracts are complete.
"""

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import bowerbird
from bowerbird import registry

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "bowerbird"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = sorted(SOURCE.rglob("*.py"))
FAMILIES = sorted(where.partition(":")[0] for where in registry.families._where.values() if "bowerbird" in where)


@cache
def _imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, anywhere in it."""
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _importers(pattern: str) -> set[str]:
    """Modules, as paths under src/bowerbird, that import something whose full name matches."""
    return {
        str(path.relative_to(SOURCE)) for path in FILES if any(re.fullmatch(pattern, name) for name in _imports(path))
    }


def test_only_the_command_line_knows_its_parser() -> None:
    assert {path.partition("/")[0] for path in _importers(r"tyro(\..*)?")} == {"cli"}


def test_torchvision_is_never_imported() -> None:
    assert _importers(r"(torchvision|lightning|timm)(\..*)?") == set()


def test_modules_that_the_command_line_needs_first_import_no_torch() -> None:
    torch_free = {"__init__.py", "budget.py", "errors.py", "registry.py", "data/__init__.py"}
    torch_free |= {"measuring/__init__.py", "measuring/request.py"}
    torch_free |= {f"config/{path.name}" for path in (SOURCE / "config").glob("*.py")}
    assert not torch_free & _importers(r"(torch|numpy|scipy|PIL|matplotlib)(\..*)?")


def test_contracts_name_every_family() -> None:
    contracts = {contract["name"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
    alone = contracts["Families never import one another, nor does their contract import any"]
    assert alone["source_modules"] == alone["forbidden_modules"] == ["bowerbird.models.*"]
    assert alone["ignore_imports"] == ["bowerbird.models.* -> bowerbird.models.base"]
    assert FAMILIES and all(re.fullmatch(r"bowerbird\.models\.\w+", family) for family in FAMILIES)
    trainer = contracts["The trainer knows no family"]
    assert "bowerbird.models.*" in trainer["forbidden_modules"]
    assert trainer["ignore_imports"] == ["bowerbird.training.* -> bowerbird.models.base"]


def test_only_models_and_nothing_above_names_a_family() -> None:
    pattern = "|".join(re.escape(module) + r"(\..*)?" for module in FAMILIES)
    assert {path.partition("/")[0] for path in _importers(pattern)} <= {"models", "export"}


def _distribution(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement, maxsplit=1)[0].lower()


def test_every_imported_package_is_declared() -> None:
    names = {"c2pa_python": "c2pa", "ipython": "IPython", "pillow": "PIL"}
    declared = {_distribution(requirement) for requirement in PROJECT["project"]["dependencies"]}
    optional = PROJECT["project"]["optional-dependencies"]
    extras = {_distribution(r) for name in optional if name != "dev" for r in optional[name]}
    imported = {name.partition(".")[0] for path in FILES for name in _imports(path)}
    foreign = imported - sys.stdlib_module_names - {"bowerbird"}
    required, optional = ({names.get(n, n) for n in (d.replace("-", "_") for d in some)} for some in (declared, extras))
    assert foreign - required - optional == set()
    assert required - foreign == set(), "declared but not imported"


def test_constraints_pin_every_requirement_exactly() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "a local version or an address"
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    extras = PROJECT["project"]["optional-dependencies"].values()
    required = {_distribution(r) for group in (PROJECT["project"]["dependencies"], *extras) for r in group}
    assert required - pinned - {"bowerbird"} == set()


def test_the_public_names_are_these() -> None:
    assert sorted(bowerbird.__all__) == [
        "BowerbirdError",
        "RunFailed",
        "ask",
        "chat",
        "check",
        "compare",
        "config",
        "diagnose",
        "edit",
        "export",
        "generate",
        "import_model",
        "info",
        "learn",
        "load",
        "measure",
        "read",
        "recipe",
        "recipes",
        "resume",
        "sample",
        "say",
        "stylise",
        "track",
        "train",
        "verify",
    ]
    assert all(getattr(bowerbird, name) is not None for name in bowerbird.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = bowerbird.trian  # type: ignore[attr-defined]


def test_recipes_data_weights_and_templates_lie_inside_the_package() -> None:
    for pattern in (
        "recipes/*.toml",
        "data/builtin/*.xz",
        "metrics/weights/*.safetensors",
        "report/templates/*",
        "shipped/*/*",
    ):
        assert list(SOURCE.glob(pattern)), pattern
    shipped = sum(
        path.stat().st_size for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    assert shipped < 25_000_000


def test_a_subpackage_does_not_take_the_place_of_a_verb() -> None:
    module = importlib.import_module("bowerbird.export")
    assert bowerbird.export is not module and bowerbird.export.__name__ == "export"
