"""Checks an app before anything of it leaves this machine, and packs it as Flower does to know its hash."""

import ast
import hashlib
import re
import shlex
import shutil
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flowerbed.errors import UsageError
from flowerbed.runs import fab, imports, settings
from flowerbed.runs.settings import Settings

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")
_HIDDEN = re.compile(r"(^|/)(\.git|\.venv|\.flwr|__pycache__|\.mypy_cache|\.ruff_cache|\.pytest_cache)(/|$)")


@dataclass(frozen=True)
class App:
    """An app that has passed the checks."""

    path: Path
    name: str
    publisher: str
    version: str
    settings: Settings
    """Its run config, and the profiles that override it."""
    resume: str | None
    """The setting that takes an earlier run's id, to go on from its last checkpoint; None: the app has none."""
    requirements: Sequence[Requirement]
    fab_hash: str
    """sha256 of the FAB, as `flwr build` would make it."""
    fab_bytes: int
    files: Sequence[str]
    """What goes into the FAB."""
    modules: Sequence[str]
    """The modules of its ServerApp and its ClientApp."""
    published: Sequence[str]
    """What Flower chooses the FAB's files from."""
    left_out: Sequence[str]
    """What stays here: Flower packs code, TOML, YAML, JSON and Markdown alone."""

    def check_release(
        self, federation: str, release: str | None, packages: Mapping[str, str], modules: Collection[str] | None = None
    ) -> None:
        """Compare what the app needs with what the release of `federation` has.

        `packages` are the release's, name to version; `modules` the names that can be imported there (None: unknown).
        Raises UsageError, which names what lacks and the command that adds it.
        """
        there = {canonicalize_name(name): version for name, version in packages.items()}
        lacking, wanted = [], []
        for requirement in self.requirements:
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            version = there.get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                lacking.append(f"'{requirement}'" + (f" (it has {version})" if version else ""))
                wanted.append(str(requirement))
        if lacking:
            raise UsageError(
                f"{self.path / 'pyproject.toml'}: {_lacks(federation, release)} {', '.join(lacking)}; "
                f"add: `flowerbed release add {shlex.join([federation, *wanted])}`, then `flowerbed up {federation}`"
            )
        missing = None if modules is None else imports.lacking(self.path, self.files, self.modules, modules)
        if missing is not None:
            raise UsageError(
                f"{self.path / missing.file}, line {missing.line}: {_lacks(federation, release)} the module "
                f"'{missing.module}', and the app has none of this name; add its package: "
                f"`flowerbed release add {federation} PACKAGE`, then `flowerbed up {federation}`"
            )

    def fab(self) -> bytes:
        """The FAB, byte for byte as `flwr build` would make it."""
        return fab.pack(self.path, _load(self.path / "pyproject.toml"), list(self.files[1:]))

    def copy(self, into: Path) -> Path:
        """Copy what Flower packs from into `into`/<app's name>, and give that folder; it packs to the same FAB.

        Connections in the app's pyproject.toml stay behind: they are no part of a FAB, and would make `flwr` rewrite
        the file.
        """
        folder = into / self.name
        for file in self.published:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.path / file, folder / file)
        document = fab.without_federations(_load(self.path / "pyproject.toml"))
        (folder / "pyproject.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
        return folder


def check(path: Path) -> App:
    """Check the app in the folder `path` and pack it in memory.

    Raises UsageError, with the file and the reason, for what the SuperLink would refuse or a site fail on.
    """
    path = path.expanduser().resolve()
    toml = path / "pyproject.toml"
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder: give the app's folder, the one with its pyproject.toml")
    if not toml.is_file():
        raise UsageError(f"{toml} does not exist: `flwr new` makes an app to begin with")
    document = _load(toml)
    section = _table(document, toml, "tool", "flwr", "app")
    project = _table(document, toml, "project")
    name = _text(project, "name", toml, "project")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{toml}: [project] name '{name}' must begin with a letter, then letters, digits and dashes, 32 at most"
        )
    known = settings.of(name, section.get("config", {}), _own(document).get("profiles", {}), toml)
    there = fab.walk(path)
    published = fab.published(path, there)
    files = fab.packed(published, section, toml)
    for file in files:
        if file.endswith(".py"):
            _compile(path / file)
    components = _table(document, toml, "tool", "flwr", "app", "components")
    modules = [
        _module(path, component, _text(components, component, toml, "tool.flwr.app.components"), files)
        for component in ("serverapp", "clientapp")
    ]
    packed = fab.pack(path, document, files)
    ignored = fab.ignored(path)
    return App(
        path=path,
        name=name,
        publisher=_text(section, "publisher", toml, "tool.flwr.app"),
        version=_text(project, "version", toml, "project"),
        settings=known,
        resume=_resume(document, known, toml),
        requirements=_requirements(project, toml),
        fab_hash=hashlib.sha256(packed).hexdigest(),
        fab_bytes=len(packed),
        files=["pyproject.toml", *files],
        modules=modules,
        published=published,
        left_out=[
            file
            for file in there
            if file not in {*files, "pyproject.toml", ".gitignore"}
            and not ignored.match_file(file)
            and not _HIDDEN.search(file)
        ],
    )


def _load(toml: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(toml.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{toml}: {error}") from None


def _table(document: Mapping[str, Any], toml: Path, *names: str) -> Mapping[str, Any]:
    table: Any = document
    for depth, name in enumerate(names, 1):
        table = table.get(name)
        if not isinstance(table, dict):
            raise UsageError(f"{toml}: section [{'.'.join(names[:depth])}] is missing")
    result: Mapping[str, Any] = table
    return result


def _text(table: Mapping[str, Any], key: str, toml: Path, section: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{toml}: {key} is missing in [{section}]")
    return value


def _requirements(project: Mapping[str, Any], toml: Path) -> list[Requirement]:
    try:
        return [Requirement(text) for text in project.get("dependencies", [])]
    except (InvalidRequirement, TypeError) as error:
        raise UsageError(f"{toml}: [project] dependencies: {' '.join(str(error).split())}") from None


def _lacks(federation: str, release: str | None) -> str:
    return f"release {release} lacks" if release else f"the release of {federation} lacks"


def _own(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the app tells Flowerbed: the table [tool.flowerbed]."""
    own = document["tool"].get("flowerbed", {})
    return own if isinstance(own, dict) else {}


def _resume(document: Mapping[str, Any], known: Settings, toml: Path) -> str | None:
    key = _own(document).get("resume")
    if key is None or (isinstance(key, str) and isinstance(known.defaults.get(key), str)):
        return key
    raise UsageError(
        f"{toml}: [tool.flowerbed] resume = {key!r} must name a setting in [tool.flwr.app.config] that is a string"
    )


def _module(path: Path, component: str, reference: str, files: Sequence[str]) -> str:
    """The module of a component, which is there, is packed, and assigns what the component names."""
    toml = path / "pyproject.toml"
    module, sign, attribute = reference.partition(":")
    if not sign or not module or not attribute:
        raise UsageError(
            f"{toml}: {component} = '{reference}' must be module:attribute, as in 'package.server_app:app'"
        )
    stem = module.replace(".", "/")
    candidates = [f"{stem}.py", f"{stem}/__init__.py"]
    there = next((file for file in candidates if (path / file).is_file()), None)
    if there is None:
        raise UsageError(f"{toml}: {component} = '{reference}', but {path / candidates[0]} does not exist")
    if there not in files:
        raise UsageError(f"{toml}: {component} = '{reference}', but Flower does not pack {there}: rename or move it")
    root = attribute.split(".")[0]
    if root not in _names(ast.parse((path / there).read_bytes())):
        raise UsageError(f"{path / there}: assigns no '{root}', which {component} = '{reference}' names")
    return module


def check_module(file: Path, attribute: str) -> None:
    """Check that a Python file compiles and assigns `attribute`; UsageError with file and line."""
    _compile(file)
    if attribute not in _names(ast.parse(file.read_bytes())):
        raise UsageError(f"{file}: assigns no '{attribute}'")


def _names(tree: ast.Module) -> set[str]:
    """What a module assigns or exports; Flower too looks for plain assignments and `__all__` alone."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    names.add(target.id)
                    if target.id == "__all__" and isinstance(node.value, ast.List | ast.Tuple):
                        names |= {str(item.value) for item in node.value.elts if isinstance(item, ast.Constant)}
    return names


def _compile(file: Path) -> None:
    try:
        compile(file.read_bytes(), file.name, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise UsageError(f"{file}, line {error.lineno or '?'}: {error.msg}") from None
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from None
