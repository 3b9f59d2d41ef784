"""The commands that edit pictures: `edit`, whose flags are those of the action, and `stylise`, which needs no run."""

import json as jsonlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from tyro.conf import Positional, Suppress, arg

from bowerbird.cli.command import Command, Switch
from bowerbird.cli.commands import named
from bowerbird.cli.options import chosen, parse_action
from bowerbird.cli.printing import heard, only_json, print_notes
from bowerbird.errors import BowerbirdError
from bowerbird.ranges import Whole
from bowerbird.shipped import place_beside


@dataclass(frozen=True)
class Edit(Command):
    """Completes, enlarges, varies, reconstructs, compresses or interpolates pictures, as far as a run can.

    `edit RUN` lists what it can do; `edit RUN ACTION --help` shows the options of an action as well.
    """

    run: Positional[Path]
    """The run folder, or a run that ships: digits, emoji-3d."""
    action: Positional[str | None] = None
    """What to do; without it, the actions of this run are listed."""
    source: tuple[Path, ...] = ()
    """Pictures, or folders of pictures, to start from."""
    mask: Path | None = None
    """A picture of the same size: white, or transparent if there is any transparency, is what to make anew."""
    n: Annotated[int | None, arg(aliases=("-n",))] = None
    """How many results (default: one for each source; interpolate without a source: 4 stations)."""
    seed: Whole = 0
    """The same seed gives the same results."""
    label: tuple[str, ...] = ()
    """The class of the pictures: one for all, or one for each."""
    prompt: tuple[str, ...] = ()
    """The caption of the pictures: one for all, or one for each."""
    given: tuple[str, ...] = ()
    """What else they are made from: NAME=VALUE; a name that occurs several times has a value for each picture."""
    out: Path | None = None
    """Folder to write to (default: edits/ACTION inside the run; of a run that ships, edits/NAME/ACTION here)."""
    device: str = "auto"
    """Where to compute: auto (a GPU when there is one), cpu, cuda, cuda:1 or mps."""
    no_label: Switch = False
    """Write files that do not say that they were generated; metadata.jsonl records it."""
    json: Switch = False
    """Print JSON."""
    options: Suppress[Any] = None

    @classmethod
    def parse(cls, argv: Sequence[str], prog: str) -> Self:
        return parse_action(cls, argv, prog)

    def __call__(self) -> None:
        from bowerbird import api
        from bowerbird.generating import require_own

        if self.action is None:
            self.list_actions()
            return
        folder = self.out or place_beside(self.run, "edits") / self.action
        require_own(folder)
        with heard() as notes, only_json(self.json):
            edited = api.edit(
                self.run,
                self.action,
                source=list(self.source) or None,
                mask=self.mask,
                n=self.n,
                seed=self.seed,
                given=self.inputs(),
                options=chosen(self.options),
                device=self.device,
            )
            place = edited.save(folder, labelled=not self.no_label)
        within = place.iterdir() if place.is_dir() else [place]
        files = sorted(path.name for path in within if not path.name.startswith("."))
        if self.json:
            about = {"folder": str(folder), "files": files, "summary": edited.summary, "notes": notes}
            print(jsonlib.dumps(about, indent=2, ensure_ascii=False))
            return
        print(edited.shown(place))
        print_notes([*filter(None, [edited.summary]), *notes])

    def list_actions(self) -> None:
        from bowerbird import api

        actions = api.actions_of(self.run)
        if self.json:
            print(jsonlib.dumps({"actions": actions}))
        elif actions:
            print("\n".join(actions))
        else:
            raise BowerbirdError(f"{self.run} can do no action: it makes no pictures.")

    def inputs(self) -> dict[str, list[str]]:
        """What the pictures are made from, by name."""
        short = [("label", one) for one in self.label] + [("prompt", one) for one in self.prompt]
        words: dict[str, list[str]] = {}
        for name, value in [*short, *map(named, self.given)]:
            words.setdefault(name, []).append(value)
        return words


@dataclass(frozen=True)
class Stylise(Command):
    """Paints one picture in the style of another (Gatys et al. 2016); needs `bowerbird data get efficientnet-lite0`."""

    content: Positional[Path]
    """The picture to paint."""
    style: Positional[Path]
    """The picture in whose style."""
    strength: float = 1.0
    """Above 1 more of the style, below 1 more of the content."""
    size: int = 256
    """The longest side of the result in pixels, 64 to 1024; the cost grows with its square."""
    iterations: int = 150
    """Steps of the search; each is one pass through the network and back."""
    out: Path = Path("stylised")
    """Folder to write to."""
    no_label: Switch = False
    """Write files that do not say that they were generated; metadata.jsonl records it."""

    def __call__(self) -> None:
        from bowerbird import api
        from bowerbird.generating import require_own

        require_own(self.out)
        made = api.stylise(self.content, self.style, strength=self.strength, size=self.size, iterations=self.iterations)
        made.save(self.out, labelled=not self.no_label)
        print(self.out / f"{made.names[0]}.png")
