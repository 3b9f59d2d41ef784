"""What rules say stands in a file: every key is there and used, and every brace has its value."""

import ast
import string
import tomllib
from pathlib import Path

import bowerbird.reading.rules as package
from bowerbird.reading.rules.experiments import EXPERIMENTS

RULES = Path(package.__file__ or "").parent
MESSAGES = tomllib.loads((RULES / "messages.toml").read_text(encoding="utf-8"))


def said() -> list[tuple[str, set[str]]]:
    """Every key that a rule says, with the names of the values that it hands over."""
    found = [(experiment.id, {"fact", "said"}) for experiment in EXPERIMENTS]
    for path in RULES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                if isinstance(node.args[0], ast.Attribute):
                    continue  # the key of an experiment
                keys = [n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant) and n.value in MESSAGES]
                assert keys, f"{path.name}, line {node.lineno}: no message of this key"
                found += [(str(key), {k.arg for k in node.keywords if k.arg}) for key in keys]
    return found


def test_every_message_has_its_values_and_is_said() -> None:
    told = said()
    for key, given in told:
        for text in MESSAGES[key].values():
            wanted = {
                name.partition(".")[0].partition("[")[0] for _, name, _, _ in string.Formatter().parse(text) if name
            }
            assert wanted <= given, (key, wanted - given)
    assert {key for key, _ in told} == set(MESSAGES)
    assert all(set(row) <= {"message", "evidence", "fix"} and row["message"] for row in MESSAGES.values())
