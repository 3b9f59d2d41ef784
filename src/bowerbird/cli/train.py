"""The commands that train.  The flags of ``train`` are the fields of the run that its recipe describes."""

import dataclasses
import shlex
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from tyro.conf import Positional, Suppress, arg

from bowerbird import config, registry
from bowerbird.cli.command import Command, Switch
from bowerbird.cli.flags import parse_flags, value_of
from bowerbird.cli.printing import noted, print_sweep
from bowerbird.errors import BowerbirdError
from bowerbird.training.budget import only, parse_budget


@dataclass(frozen=True)
class DataFlags(config.Data):
    """Where examples come from and what is done to them."""

    from_: Annotated[str | None, arg(name="from")] = None
    """Image to image: the source style, which is a value of a column or a folder."""


@dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """Trains a model into a run folder.  `train RECIPE --help` shows the flags of that recipe's model as well."""

    data: DataFlags = DataFlags()
    train: config.Train = config.Train()
    source: Annotated[str | None, arg(name="data", metavar="SRC")] = None
    """Short for --data.source: a built-in name, a folder or a zip."""
    budget: str | None = None
    """The only budget of this run: 60s, 10m, 2h (wall-clock time), 500steps, 20000examples or 1e15flops."""
    out: Path | None = None
    """The run folder (default: a new one under runs/)."""
    start: str | None = None
    """Short for --train.start: a run folder to take the initial weights from, as far as their shapes fit."""
    plugin: Path | None = None
    """A Python file that registers your own families or nets."""
    find_lr: Switch = False
    """Do not train: try growing learning rates for some steps, show the loss over them, and suggest one."""
    quiet: Switch = False
    """Show no progress."""


@dataclass(frozen=True, kw_only=True)
class TrainCommand(TrainFlags, Command):
    """Trains a model into a run folder."""

    recipe: Positional[str]
    """A recipe's name, a TOML file, or the run.toml of another run.  Comes first."""
    model: config.ModelConfig

    @classmethod
    def parse(cls, argv: Sequence[str], prog: str) -> Self:
        """The command with the recipe's values as defaults, so that the family's own fields are flags."""
        if not argv or argv[0].startswith("-"):
            if {"-h", "--help"} & set(argv):
                parse_flags(TrainFlags, ["--help"], f"{prog} RECIPE")
            raise BowerbirdError(f"Name the recipe first: {prog} RECIPE [flags]; `bowerbird recipes` lists them.")
        config.find(argv[0])
        if plugin := value_of("--plugin", argv):
            registry.load_plugin(Path(plugin))
        run = config.load(argv[0])
        plugin_of_recipe = Path(run.plugin) if run.plugin else None
        source = value_of("--data", argv) or value_of("--data.source", argv) or run.data.source
        asks = bool({"-h", "--help"} & set(argv))
        flags = _flags_for(dataclasses.replace(run.data, source=source)) if asks else DataFlags
        data = flags(**{field.name: getattr(run.data, field.name) for field in dataclasses.fields(run.data)})
        hints = [("data", flags, dataclasses.field(default=data))]
        command: Any = dataclasses.make_dataclass(cls.__name__, hints, bases=(cls,), frozen=True, kw_only=True)
        command.__doc__ = f"{cls.__doc__}\n\n" + _EXAMPLES.format(call=f"{prog} {argv[0]}", data=shlex.quote(source))
        default = command(recipe=argv[0], model=run.model, train=run.train, plugin=plugin_of_recipe)
        parsed: Self = parse_flags(command, argv, prog, default)
        return parsed

    def run(self) -> config.Run:
        """The run that was asked for."""
        train = self.train
        data = config.Data(**{field.name: getattr(self.data, field.name) for field in dataclasses.fields(config.Data)})
        if self.source is not None:
            data = dataclasses.replace(data, source=self.source)
        if self.budget is not None:
            train = dataclasses.replace(train, **only(parse_budget(self.budget)))
        if self.start is not None:
            train = dataclasses.replace(train, start=self.start)
        plugin = str(self.plugin.resolve()) if self.plugin else ""
        return dataclasses.replace(config.load(self.recipe), model=self.model, data=data, train=train, plugin=plugin)

    def __call__(self) -> None:
        run = self.run()
        from bowerbird import api

        if self.find_lr:
            print_sweep(api.find_lr(run, self.out), self.recipe)
        else:
            with noted():
                print(api.train(run, self.out, quiet=self.quiet))


_EXAMPLES = """For example:

    {call} --data {data} --budget 10m

    {call} --train.lr 1e-4 --train.steps 5000 --out runs/slow

    {call} --data {data} --find-lr"""


def _flags_for(data: config.Data) -> type[DataFlags]:
    """The flags of data that the source's medium reads, for the help."""
    from bowerbird.media.medium import media
    from bowerbird.media.opening import medium_of

    try:
        read = medium_of(data).settings
    except BowerbirdError:  # of a source that does not exist: what trains says so
        return DataFlags
    of_others = {"options", *(name for medium in media() for name in medium.settings)} - set(read)
    hints = typing.get_type_hints(DataFlags, include_extras=True)
    hidden: Any = Suppress
    fields = [
        (field.name, hidden[hints[field.name]], field)
        for field in dataclasses.fields(DataFlags)
        if field.name in of_others
    ]
    made: Any = dataclasses.make_dataclass("DataFlags", fields, bases=(DataFlags,), frozen=True)
    made.__doc__ = DataFlags.__doc__
    return made


@dataclass(frozen=True)
class ResumeFlags:
    """Continues a run exactly where it stopped, or a finished one with a larger budget."""

    run: Positional[Path]
    """The run folder."""
    budget: str | None = None
    """Train further, also a finished run: +10m, +500steps … adds to it, 500steps … is the new total."""
    source: Annotated[str | None, arg(name="data", metavar="SRC")] = None
    """Where the run's data have moved to."""
    device: str | None = None
    """Short for --train.device: auto, cpu, cuda, cuda:1, mps."""
    accept_changes: Switch = False
    """Continue although run.toml or the data differ from those of the training so far; the run records it."""
    quiet: Switch = False
    """Show no progress."""
    train: config.Train = config.Train()


@dataclass(frozen=True)
class Resume(ResumeFlags, Command):
    """Continues a run where it stopped."""

    @classmethod
    def parse(cls, argv: Sequence[str], prog: str) -> Self:
        """The command with the run's own settings as defaults of --train.lr and the like."""
        folder = next((word for word in argv if (Path(word) / "run.toml").is_file()), None)
        if folder is None:
            return parse_flags(cls, argv, prog)
        return parse_flags(cls, argv, prog, cls(run=Path(folder), train=config.load(folder).train))

    def __call__(self) -> None:
        from bowerbird import api

        fields = dataclasses.fields(config.Train)
        before = config.load(str(self.run)).train if (self.run / "run.toml").is_file() else self.train
        pairs = [(field.name, getattr(self.train, field.name), getattr(before, field.name)) for field in fields]
        settings = {f"train.{name}": value for name, value, usual in pairs if value != usual}
        with noted():
            folder = api.resume(
                self.run,
                data=self.source,
                budget=self.budget,
                device=self.device,
                accept_changes=self.accept_changes,
                quiet=self.quiet,
                **settings,
            )
        print(folder)
