"""The pre-commit hook: it checks every file that it is given, and fails if one of them failed."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

HOOKS = Path(__file__).parents[2] / ".pre-commit-hooks.yaml"


@pytest.mark.parametrize(("bad", "status"), [("b.py", 1), ("none", 0)])
def test_the_hook_checks_all_files_and_fails_if_one_does(bad: str, status: int, tmp_path: Path) -> None:
    command = tmp_path / "bowerbird"
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n[ "$2" != {bad} ]\n')
    command.chmod(0o755)
    text = HOOKS.read_text()
    (entry,) = re.findall(r"^  entry: (.*)$", text, re.M)
    assert "- id: bowerbird-check" in text
    words = [*shlex.split(entry), "a.py", "b.py", "with space.py"]
    done = subprocess.run(words, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert done.returncode == status
    assert (tmp_path / "called").read_text().splitlines() == ["check a.py", "check b.py", "check with space.py"]
