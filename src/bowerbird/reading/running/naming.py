"""Under which names a program and its own files are imported, and in which folders these are looked for."""

import ast
from pathlib import Path

from bowerbird.reading.running.request import Request
from bowerbird.reading.source import relative_levels

NEVER_OWN = ("torch", "numpy", "bowerbird")
"""Packages that are taken as they are installed, whatever lies beside the program, but for files that are read."""


def folders_of(request: Request) -> list[Path]:
    """Where the program's own imports are looked for: beside the main file, unless that lies in a package, and in each
    folder up to the project's, from which people run; first where most of what it imports is found."""
    main, root, project = Path(request.main), Path(request.root), Path(request.project or request.root)
    above = [folder for folder in root.parents if folder.is_relative_to(project)]
    above += [project / "src"] if (project / "src").is_dir() else []
    folders = list(dict.fromkeys((*([] if package_of(request) else [main.resolve().parent]), root, *above)))
    nodes = list(ast.walk(ast.parse(request.texts[request.main]))) if len(folders) > 1 else []
    names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level]
    return sorted(folders, key=lambda folder: -sum(_lies_in(folder, name) for name in names))


def _lies_in(folder: Path, name: str) -> bool:
    base = folder.joinpath(*name.split("."))
    return base.is_dir() or base.with_name(f"{base.name}.py").is_file()


def names_of(request: Request) -> list[str]:
    """The dotted names under which the main file can be imported."""
    main = Path(request.main).resolve()
    paths = [
        main.relative_to(folder) for folder in map(Path.resolve, folders_of(request)) if main.is_relative_to(folder)
    ]
    parts = [path.parts[:-1] if path.name == "__init__.py" else path.with_suffix("").parts for path in paths]
    return [".".join(names) for names in parts if names and all(name.isidentifier() for name in names)]


def package_of(request: Request) -> str | None:
    """The package that the main file lies in, for its relative imports."""
    folder, root = Path(request.main).resolve().parent, Path(request.root)
    parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    if not parts:
        return None
    inside = (folder / "__init__.py").is_file() or relative_levels(ast.parse(request.texts[request.main])) > 0
    return ".".join(parts) if inside else None
