"""The command that prints what a shell needs to complete commands, flags and recipes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from bowerbird import config
from bowerbird.cli.command import Command
from bowerbird.cli.flags import flags_of
from bowerbird.cli.train import TrainCommand, TrainFlags

BASH = """_bowerbird() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} flags=""
  [[ $command =~ ^({pairs})$ && $COMP_CWORD -gt 2 ]] && command="$command ${{COMP_WORDS[2]}}"
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    return
  fi
  case $command in
{cases}
  esac
  COMPREPLY=($(compgen -W "$flags" -- "$word"))
  [[ $word == -* ]] || COMPREPLY+=($(compgen -f -- "$word"))
}}
complete -o filenames -F _bowerbird bowerbird"""

ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
"""Zsh understands bash's functions after this."""


@dataclass(frozen=True)
class Completion(Command):
    """Prints a script that lets a shell complete commands, flags and recipes."""

    shell: Positional[Literal["bash", "zsh", "fish"]]
    """Load it with: source <(bowerbird completion bash), or for fish: bowerbird completion fish | source"""

    def __call__(self) -> None:
        from bowerbird.cli import COMMANDS

        words = {name: completions(name, command) for name, command in COMMANDS.items()}
        print(fish(words) if self.shell == "fish" else (ZSH if self.shell == "zsh" else "") + bash(words))


def completions(name: str, command: type) -> list[str]:
    """What may follow a command: its flags, and the names of recipes where it takes them."""
    flags = flags_of(TrainFlags if command is TrainCommand else command, f"bowerbird {name}")
    return [*(config.recipe_names() if name in ("train", "compare", "recipes") else []), *flags]


def bash(words: Mapping[str, list[str]]) -> str:
    firsts = dict.fromkeys(name.split()[0] for name in words)
    cases = [f'    "{name}") flags="{" ".join(following)}" ;;' for name, following in words.items()]
    seconds: dict[str, list[str]] = {}
    for first, second in (name.split() for name in words if " " in name):
        seconds.setdefault(first, []).append(second)
    cases += [f'    {first}) flags="{" ".join(following)}" ;;' for first, following in seconds.items()]
    return BASH.format(commands=" ".join(firsts), cases="\n".join(cases), pairs="|".join(seconds))


def fish(words: Mapping[str, list[str]]) -> str:
    firsts = " ".join(dict.fromkeys(name.split()[0] for name in words))
    lines = [f'complete -c bowerbird -n __fish_use_subcommand -a "{firsts}"']
    for name, following in words.items():
        seen = " and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split()).replace(" and ", "; and ")
        lines.append(f"complete -c bowerbird -n '{seen}' -a \"{' '.join(following)}\"")
    return "\n".join(lines)
