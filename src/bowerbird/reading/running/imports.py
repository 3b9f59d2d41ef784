"""Imports of the program: its own files compiled with guarded loops, stand-ins for packages that are not installed.

Order: the user's folder, what is installed (except a few packages that have a stand-in in any case, because they only
draw, log or download), a stand-in of ours, and at last a stub that accepts everything.
"""

import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from bowerbird.reading.running.naming import NEVER_OWN, folders_of
from bowerbird.reading.running.recorder import Recorder
from bowerbird.reading.running.request import Request
from bowerbird.reading.running.rewrite import compiled
from bowerbird.reading.running.shrinking import shrink
from bowerbird.reading.running.standins.anything import Anything

_HERE = "bowerbird.reading.running.standins"
_OURS = {
    "torchvision": f"{_HERE}.torchvision",
    "matplotlib": f"{_HERE}.matplotlib",
    "tqdm": f"{_HERE}.tqdm",
    "einops": f"{_HERE}.einops",
    "torch._six": f"{_HERE}.six",
    "unidecode": f"{_HERE}.unidecode",
    "tiktoken": f"{_HERE}.tiktoken",
    "lightning": f"{_HERE}.lightning",
    "pytorch_lightning": f"{_HERE}.lightning",
}
_ALWAYS = {
    "matplotlib": "pictures are recorded, not drawn",
    "pylab": "pictures are recorded, not drawn",
    "mpl_toolkits": "pictures are recorded, not drawn",
    "tqdm": "a progress bar that shows nothing",
    "wandb": "a logger that sends nothing",
    "tensorboard": "a logger that writes nothing",
    "tensorboardX": "a logger that writes nothing",
    "seaborn": "pictures are not drawn",
    "transformers": "its models and tokenizers would be downloaded",
    "datasets": "its data would be downloaded",
    "requests": "there is no network",
    "IPython": "there is no notebook",
    "cv2": "pictures are not drawn",
    "nltk": "its data would be downloaded",
    "beartype": "types are not checked while it runs",
    "lightning": "a trainer that takes a few steps",
    "pytorch_lightning": "a trainer that takes a few steps",
}
_KEPT = ("__getattr__", "__version__", "__all__")
_SUBMODULES = {
    "torch.utils.tensorboard": "a logger that writes nothing", "torch.utils.cpp_extension": "nothing is compiled here",
    "torch._six": "PyTorch has it no more",
}  # fmt: skip


class Finder(importlib.abc.MetaPathFinder):
    """First in ``sys.meta_path`` for the user's files and stand-ins; a second one comes last, for what is missing."""

    def __init__(
        self, request: Request, recorder: Recorder, replace: Callable[[str, str], None], reachable: Iterable[Path], *,
        last: bool,
    ) -> None:  # fmt: skip
        self.request, self.recorder, self.replace, self.last = request, recorder, replace, last
        self.reachable = {Path(os.path.realpath(file)) for file in reachable}
        self.root = Path(request.root)
        self.folders = folders_of(request)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        top = fullname.partition(".")[0]
        if self.last:
            return self._missing(fullname, top)
        if top in NEVER_OWN and fullname not in _SUBMODULES:
            return self._read(fullname)
        for folder in self.folders:
            spec = self._own(fullname, folder / fullname.replace(".", "/"), top)
            if spec is not None:
                return spec
        given = isinstance(sys.modules.get(top), Stub)  # then a library, too, finds no other part of it
        if (top in _ALWAYS or fullname in _SUBMODULES) and (given or not _asked_by_a_library()):
            return self._stand_in(
                fullname, fullname if fullname in _OURS else top, _ALWAYS.get(top) or _SUBMODULES[fullname]
            )
        return _unwatched(fullname, path)

    def _read(self, fullname: str) -> importlib.machinery.ModuleSpec | None:
        """A module of an installed package that is itself what is read: the family of a recipe."""
        file = self.root / f"{fullname.replace('.', '/')}.py"
        if str(file) not in self.request.texts:
            return None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=OwnLoader(file, self.request, self.recorder)
        )

    def _own(self, fullname: str, base: Path, top: str) -> importlib.machinery.ModuleSpec | None:
        """A module of the program's own at this path: a package, a file, or a folder with files that it imports."""
        for file in (base / "__init__.py", base.with_name(base.name + ".py")):
            if file.is_file() and file.stat().st_size < 1_000_000:
                loader = OwnLoader(file, self.request, self.recorder)
                inside = [str(file.parent)] if file.name == "__init__.py" else None
                return importlib.util.spec_from_file_location(
                    fullname, file, loader=loader, submodule_search_locations=inside
                )
        real = Path(os.path.realpath(base))
        if not base.is_dir() or self._installed(top) or not any(f.is_relative_to(real) for f in self.reachable):
            return None
        spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [str(real)]
        return spec

    def _installed(self, top: str) -> bool:
        others = [place for place in sys.path if Path(place) not in self.folders]
        return importlib.machinery.PathFinder.find_spec(top, others) is not None

    def _missing(self, fullname: str, top: str) -> importlib.machinery.ModuleSpec | None:
        if top in sys.builtin_module_names or top in sys.stdlib_module_names or _asked_by_a_library():
            return None
        parent = sys.modules.get(top)
        if parent is not None and self._is_own(parent):
            self.replace(fullname, "the file is not there")
            return importlib.machinery.ModuleSpec(fullname, StandInLoader(fullname, fullname), is_package=True)
        if parent is not None and not isinstance(parent, Stub) and top not in _OURS:
            return None
        return self._stand_in(fullname, top, "the package is not installed")

    def _is_own(self, package: types.ModuleType) -> bool:
        """Whether a package is the user's own folder."""
        places = [*getattr(package, "__path__", ()), getattr(package, "__file__", None) or ""]
        return any(place and Path(place).is_relative_to(folder) for place in places for folder in self.folders)

    def _stand_in(self, fullname: str, top: str, reason: str) -> importlib.machinery.ModuleSpec:
        self.replace(fullname if fullname in _SUBMODULES else top, reason)
        return importlib.machinery.ModuleSpec(fullname, StandInLoader(fullname, top), is_package=True)


def _unwatched(fullname: str, path: Sequence[str] | None) -> importlib.machinery.ModuleSpec | None:
    """An installed module that runs without the hook on every call, which would make its import several times as long;
    None where nothing watches, or where it is not read from a source file."""
    spec = importlib.machinery.PathFinder.find_spec(fullname, path) if sys.getprofile() is not None else None
    if spec is None or type(spec.loader) is not importlib.machinery.SourceFileLoader:
        return None
    run = spec.loader.exec_module

    def exec_module(module: types.ModuleType) -> None:
        with unhooked():
            run(module)

    spec.loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec


@contextlib.contextmanager
def unhooked() -> Iterator[None]:
    """Within, the hook on every call rests: what runs is nobody's program."""
    watch = sys.getprofile()
    sys.setprofile(None)
    try:
        yield
    finally:
        sys.setprofile(watch)


class OwnLoader(importlib.machinery.SourceFileLoader):
    """Compiles another file of the project with guarded loops; where the program imports it, and no driver, its lines
    count as the user's from then on."""

    def __init__(self, file: Path, request: Request, recorder: Recorder) -> None:
        super().__init__(file.stem, str(file))
        self.file, self.request, self.recorder = str(file), request, recorder

    def get_code(self, fullname: str) -> types.CodeType:
        known = next((f for f in self.request.texts if Path(f).resolve() == Path(self.file).resolve()), self.file)
        text = self.request.texts.get(known)
        if text is None:
            text = Path(self.file).read_text(encoding="utf-8", errors="replace")
        self.recorder.guests.add(known)
        if _asked_by(self.recorder.files):
            self.recorder.files.add(known)
        with unhooked():
            tree = ast.parse(text)
            if self.request.shrink:
                shrink(tree)
            return compiled(tree, known)


def _asked_by(files: set[str]) -> bool:
    """Whether code of these files is running, and so asks for what is imported."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename not in files:
        frame = frame.f_back
    return frame is not None


_MODULES = ("Module", "LightningModule", "TypedModule", "ModelMixin", "PreTrainedModel", "BaseModule")


class Stub(types.ModuleType):
    """A module of which every attribute is accepted."""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return "0.0.0"
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        value: Any = nn.Module if name in _MODULES else Anything(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


class Delegate(types.ModuleType):
    """A module whose attributes are those of an object."""

    def __init__(self, name: str, value: Any) -> None:
        super().__init__(name)
        self.__dict__["_value"] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        value = self.__dict__["_value"]
        return getattr(value, name, Anything(f"{self.__name__}.{name}"))


class StandInLoader(importlib.abc.Loader):
    """Gives one of our modules under the name that the program asks for, or a stub."""

    def __init__(self, fullname: str, top: str) -> None:
        self.fullname, self.top = fullname, top

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        ours = _OURS.get(self.top)
        if ours is not None:
            try:
                real = importlib.import_module(ours + self.fullname[len(self.top) :])
            except ModuleNotFoundError:
                return self._part(importlib.import_module(ours))
            alias = Stub(self.fullname, real.__doc__)
            alias.__dict__.update({k: v for k, v in real.__dict__.items() if not k.startswith("__") or k in _KEPT})
            return alias
        return Stub(self.fullname)

    def _part(self, ours: types.ModuleType) -> types.ModuleType:
        """A module for what our stand-in holds as an attribute: ``matplotlib.pyplot``."""
        value: Any = ours
        for word in self.fullname.split(".")[1:]:
            value = getattr(value, word, None)
        return Stub(self.fullname) if value is None else Delegate(self.fullname, value)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []


def supplied(error: ImportError, replace: Callable[[str, str], None]) -> bool:
    """Gives an installed package the name that a program wrongly expects of it: as one of its modules has it by now,
    else a stand-in; False where that is not the matter."""
    wanted = re.search(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
    package = sys.modules.get(wanted.group(2)) if wanted else None
    place = getattr(package, "__file__", None) or ""
    if wanted is None or package is None or not place.startswith((sys.prefix, sys.base_prefix)):
        return False
    name, below = wanted.group(1), [m for n, m in sys.modules.items() if n.startswith(f"{package.__name__}.")]
    found = next((vars(m)[name] for m in below if name in getattr(m, "__dict__", ())), None)
    setattr(package, name, Anything(name) if found is None else found)
    replace(f"{package.__name__}.{name}", "the installed version has no such name")
    return True


def _asked_by_a_library() -> bool:
    """Whether the import that is going on stands in an installed package, not in the user's code or in ours."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(("<frozen", _PACKAGE, _IMPORTLIB)):
            return file.startswith((sys.prefix, sys.base_prefix))
        frame = frame.f_back
    return False


_PACKAGE = str(Path(__file__).parents[2])
_IMPORTLIB = str(Path(importlib.__file__).parent)


def install(
    request: Request, recorder: Recorder, replace: Callable[[str, str], None], reachable: Iterable[Path]
) -> None:  # fmt: skip
    """Puts both finders in place; what is already loaded of the packages with stand-ins is forgotten.

    ``reachable`` are the files of the program's own that can be read.
    """
    for name in list(sys.modules):
        if name.partition(".")[0] in _ALWAYS or name in _SUBMODULES:
            del sys.modules[name]
    sys.meta_path.insert(0, Finder(request, recorder, replace, reachable, last=False))
    sys.meta_path.append(Finder(request, recorder, replace, reachable, last=True))
    sys.path[:0] = [str(folder) for folder in folders_of(request)]
