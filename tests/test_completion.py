"""Shells complete what the command line knows."""

import shutil
import subprocess

import pytest

from bowerbird import config
from bowerbird.cli import COMMANDS, main


@pytest.fixture(scope="module")
def script() -> str:
    import contextlib
    import io

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["completion", "bash"]) == 0
    return printed.getvalue()


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    line = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _bowerbird; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    ended = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    return ended.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_recipes_and_flags(script: str) -> None:
    assert {name.split()[0] for name in COMMANDS} == set(completed(script, "bowerbird", ""))
    assert completed(script, "bowerbird", "resu") == ["resume"]
    assert {"flow", "flow-mnist"} <= set(completed(script, "bowerbird", "train", "flow"))
    assert set(completed(script, "bowerbird", "train", "flow", "--train.warm")) == {"--train.warmup-steps"}
    assert completed(script, "bowerbird", "data", "ge") == ["get"]
    assert set(config.recipe_names()) <= set(completed(script, "bowerbird", "compare", ""))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same_words(shell: str, script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert "--train.warmup-steps" in printed and "flow-mnist" in printed
