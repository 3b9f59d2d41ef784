"""The command line: finds the command, runs it, and turns every error into one sentence and an exit status.

Nothing here loads torch.  Results go to standard output (as JSON with ``--json``), progress and errors to standard
error.  Exit status: 0 done, 1 something was found or the work failed, 2 wrong usage or input, 3 a program could not be
judged, 130 interrupted.
"""

import os
import sys
import traceback
from collections.abc import Sequence

from bowerbird import __version__, trust
from bowerbird.cli import (
    asking,
    commands,
    completion,
    edit,
    languages,
    learning,
    measure,
    provenance,
    read,
    serving,
    speaking,
    studio,
    tracking,
    train,
)
from bowerbird.cli.command import Command
from bowerbird.errors import BowerbirdError, unknown

PROGRAM = "bowerbird"
EVERYWHERE = ("--debug", "--allow-plugin")
"""Flags of every command."""

TWO_WORDS = ("data", "provenance")
"""First words of commands that have two."""

COMMANDS: dict[str, type[Command]] = {
    "demo": studio.Demo,
    "studio": studio.StudioCommand,
    "recipes": commands.Recipes,
    "data list": commands.DataList,
    "data get": commands.DataGet,
    "info": commands.Info,
    "train": train.TrainCommand,
    "resume": train.Resume,
    "sample": commands.Sample,
    "say": speaking.Say,
    "edit": edit.Edit,
    "stylise": edit.Stylise,
    "measure": measure.Measure,
    "compare": commands.Compare,
    "diagnose": commands.Diagnose,
    "read": read.Read,
    "ask": asking.Ask,
    "mcp": asking.Mcp,
    "check": commands.CheckCommand,
    "cite": read.Cite,
    "track": tracking.Track,
    "learn": learning.Learn,
    "chat": languages.Chat,
    "import": languages.Import,
    "export": languages.Export,
    "serve": serving.Serve,
    "verify": provenance.Verify,
    "provenance init": provenance.ProvenanceInit,
    "completion": completion.Completion,
}


def _usage() -> str:
    width = max(map(len, [*COMMANDS, *EVERYWHERE]))
    lines = [f"  {name:<{width}}  {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [flags]",
            "",
            "Train, measure and compare generative models on your own data.",
            "",
            *lines,
            "",
            f"  {'--help':<{width}}  After a command: its flags.",
            f"  {'--version':<{width}}  The version.",
            f"  {'--debug':<{width}}  Show the traceback of an error.",
            f"  {'--allow-plugin':<{width}}  Allow the plugin to run that a recipe or run names.",
            "",
            f"First steps:  {PROGRAM} recipes   {PROGRAM} train flow   {PROGRAM} compare gan vae flow --budget 60s",
        ]
    )


def _run(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return
    if argv[0] == "--version":
        print(__version__)
        return
    words = 2 if argv[0] in TWO_WORDS else 1
    name = " ".join(argv[:words])
    if argv[0] in TWO_WORDS and argv[1:2] in ([], ["-h"], ["--help"]):
        print(_usage())
        return
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    COMMANDS[name].parse(argv[words:], f"{PROGRAM} {name}")()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; every error is one sentence on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        with trust.allowing("--allow-plugin" in words):
            _run([word for word in words if word not in EVERYWHERE])
        sys.stdout.flush()
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except BrokenPipeError:
        # Whoever read our output has left; without this, Python complains once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return _fail("Interrupted.", 130, debug)
    except BowerbirdError as error:
        return _fail(str(error), error.exit_status, debug)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}.", 1, debug)
    except Exception as error:
        kind, hint = type(error).__name__, "" if debug else "; run again with --debug for the traceback"
        return _fail(f"Internal error: {kind}: {error}{hint}.", 1, debug)


def _fail(sentence: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"{PROGRAM}: {sentence}", file=sys.stderr)
    return status
