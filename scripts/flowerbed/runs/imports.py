"""What an app imports as soon as it is loaded, followed through its own files."""

import ast
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """An import of a module that is not the app's."""

    file: str
    line: int
    module: str
    """The first part of its name."""


def lacking(folder: Path, files: Collection[str], modules: Iterable[str], there: Collection[str]) -> Import | None:
    """The first import that would fail when `modules` of the app are loaded; None where all is there.

    `files` are the app's files relative to `folder`, `there` the names of the modules that can be imported beside
    the standard library's. An import inside a function, a `try` or an `if` may be meant to fail, and is let through.
    """
    waiting = [found for module in modules for found in _files_of(module, files)]
    seen = set(waiting)
    while waiting:
        file = waiting.pop(0)
        for line, module, own in _imports(file, ast.parse((folder / file).read_bytes())):
            inner = _files_of(module, files)
            waiting += [new for new in inner if new not in seen]
            seen.update(inner)
            top = module.partition(".")[0]
            if not inner and not own and top not in there and top not in sys.stdlib_module_names:
                return Import(file, line, top)
    return None


def _files_of(module: str, files: Collection[str]) -> list[str]:
    """The app's files that are run when a module of its is imported: its packages' and its own."""
    parts = module.split(".")
    stems = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    return [file for stem in stems for file in (f"{stem}/__init__.py", f"{stem}.py") if file in files]


def _imports(file: str, tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Line, module, and whether it must be the app's own, of every import at the top of a file."""
    package = Path(file).parent.parts
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *(node.module.split(".") if node.module else [])])
            if name:
                yield node.lineno, name, bool(node.level)
            # `from package import module` loads the module, too
            yield from ((node.lineno, f"{name}.{alias.name}".strip("."), True) for alias in node.names)
