"""Checks an app before anything of it leaves this machine, and packs it as Flower does to know its hash."""

import ast
import hashlib
import io
import os
import re
import shutil
import tomllib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pathspec import PathSpec
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from flowerbed.errors import UsageError
from flowerbed.runs.flwr import ConfigValue

FAB_LIMIT = 10 * 1024 * 1024
"""Bytes of a FAB that a SuperLink takes at most."""

# What Flower packs and what it never packs; the lists are part of the FAB format.
_INCLUDED = (
    "**/*.py",
    "**/*.toml",
    "**/*.md",
    "**/*.yaml",
    "**/*.yml",
    "**/*.json",
    "**/*.jsonl",
    "/LICENSE",
)
_NEVER_PUBLISHED = (".flwr/**", ".venv/**", "**/__pycache__/**")
_NEVER_INCLUDED = (
    *(".flwr/**", "**/__pycache__/**", "pyproject.toml", "**/*_test.py", "**/test_*.py"),
    *("build/**", "eggs/**", ".eggs/**", "lib/**", "lib64/**", "parts/**", "*.egg"),
    *(".venv/**", "env/**", "venv/**", "ENV/**", "env.bak/**", "venv.bak/**"),
)
_DATE = (2024, 10, 1, 0, 0, 0)
_MAX_DEPTH = 10
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")
_HIDDEN = re.compile(r"(^|/)(\.git|\.venv|\.flwr|__pycache__|\.mypy_cache|\.ruff_cache|\.pytest_cache)(/|$)")


@dataclass(frozen=True)
class App:
    """An app that has passed the checks."""

    path: Path
    name: str
    publisher: str
    version: str
    config: Mapping[str, ConfigValue]
    """The run config with its defaults; nested keys are joined with dots, as the app sees them."""
    requirements: Sequence[Requirement]
    fab_hash: str
    """sha256 of the FAB, as `flwr build` would make it."""
    fab_bytes: int
    files: Sequence[str]
    """What goes into the FAB."""
    published: Sequence[str]
    """What Flower chooses the FAB's files from."""
    left_out: Sequence[str]
    """What stays here: Flower packs code, TOML, YAML, JSON and Markdown alone."""

    def overrides(self, items: Iterable[str]) -> dict[str, ConfigValue]:
        """Read `key=value` texts as values of the types that the app's run config has.

        Raises UsageError for a key that the app does not have, and for a value of another type.
        """
        found: dict[str, ConfigValue] = {}
        for item in items:
            key, sign, text = item.partition("=")
            if not sign:
                raise UsageError(f"-c {item}: write it as key=value")
            key = key.strip()
            found[key] = _parse(key, text.strip(), self._default(key))
        return found

    def check_overrides(self, config: Mapping[str, object]) -> dict[str, ConfigValue]:
        """Check values that are typed already; UsageError as for `overrides`."""
        return {key: _convert(key, value, self._default(key)) for key, value in config.items()}

    def check_release(self, release: str | None, packages: Mapping[str, str]) -> None:
        """Compare the app's dependencies with a release's packages, name to version; UsageError names what lacks."""
        there = {canonicalize_name(name): version for name, version in packages.items()}
        lacking = []
        for requirement in self.requirements:
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            version = there.get(canonicalize_name(requirement.name))
            if version is None:
                lacking.append(f"'{requirement}'")
            elif not requirement.specifier.contains(version, prereleases=True):
                lacking.append(f"'{requirement}' (it has {version})")
        if lacking:
            raise UsageError(
                f"{self.path / 'pyproject.toml'}: release {release or 'of the federation'} lacks "
                f"{', '.join(lacking)}; build a release with this app's dependencies and deploy it"
            )

    def fab(self) -> bytes:
        """The FAB, byte for byte as `flwr build` would make it."""
        return _fab(self.path, _load(self.path / "pyproject.toml"), list(self.files[1:]))

    def copy(self, into: Path) -> Path:
        """Copy what Flower packs from into `into`/<app's name>, and give that folder; it packs to the same FAB.

        Connections in the app's pyproject.toml stay behind: they are no part of a FAB, and would make `flwr` rewrite
        the file.
        """
        folder = into / self.name
        for file in self.published:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.path / file, folder / file)
        document = _without_federations(_load(self.path / "pyproject.toml"))
        (folder / "pyproject.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
        return folder

    def _default(self, key: str) -> ConfigValue:
        if key not in self.config:
            known = ", ".join(sorted(self.config)) or "none"
            raise UsageError(f"-c {key}: {self.name} has no such setting in [tool.flwr.app.config] (it has: {known})")
        return self.config[key]


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
    config = _flat(section.get("config", {}), toml)
    there = _walk(path)
    published = _published(path, there)
    files = _packed(published, section, toml)
    for file in files:
        if file.endswith(".py"):
            _compile(path / file)
    components = _table(document, toml, "tool", "flwr", "app", "components")
    for component in ("serverapp", "clientapp"):
        reference = _text(components, component, toml, "tool.flwr.app.components")
        _check_component(path, component, reference, files)
    fab = _fab(path, document, files)
    ignored = _ignored(path)
    return App(
        path=path,
        name=name,
        publisher=_text(section, "publisher", toml, "tool.flwr.app"),
        version=_text(project, "version", toml, "project"),
        config=config,
        requirements=_requirements(project, toml),
        fab_hash=hashlib.sha256(fab).hexdigest(),
        fab_bytes=len(fab),
        files=["pyproject.toml", *files],
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


def _flat(table: Mapping[str, Any], toml: Path, prefix: str = "") -> dict[str, ConfigValue]:
    flat: dict[str, ConfigValue] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, toml, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            flat[f"{prefix}{key}"] = value
        else:
            raise UsageError(f"{toml}: {prefix}{key} in [tool.flwr.app.config] must be a boolean, a number or a string")
    return flat


def _requirements(project: Mapping[str, Any], toml: Path) -> list[Requirement]:
    try:
        return [Requirement(text) for text in project.get("dependencies", [])]
    except (InvalidRequirement, TypeError) as error:
        raise UsageError(f"{toml}: [project] dependencies: {' '.join(str(error).split())}") from None


def _check_component(path: Path, component: str, reference: str, files: Sequence[str]) -> None:
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


def _published(path: Path, there: list[str]) -> list[str]:
    """What Flower chooses the FAB's files from: some kinds of files, and never what is ignored or hidden."""
    ignored, kinds, never = _ignored(path), _spec(_INCLUDED), _spec(_NEVER_PUBLISHED)
    published = [
        file for file in there if kinds.match_file(file) and not never.match_file(file) and not ignored.match_file(file)
    ]
    if "pyproject.toml" not in published:
        raise UsageError(f"{path / '.gitignore'} ignores pyproject.toml: without it there is no app")
    for file in published:
        if file.count("/") > _MAX_DEPTH:
            raise UsageError(
                f"{path / file}: lies deeper than {_MAX_DEPTH} folders; move it up, or add it to .gitignore"
            )
    return published


def _packed(published: list[str], section: Mapping[str, Any], toml: Path) -> list[str]:
    """What goes into the FAB beside pyproject.toml, in the FAB's order."""
    never = _spec(_NEVER_INCLUDED)
    files = published
    for key, keep in (("fab-include", True), ("fab-exclude", False)):
        if key in section:
            patterns = _patterns(section[key], key, published, toml)
            files = [file for file in files if patterns.match_file(file) is keep]
    return sorted(file for file in files if not never.match_file(file))


def _patterns(patterns: object, key: str, published: list[str], toml: Path) -> "PathSpec[Any]":
    if not isinstance(patterns, list) or not patterns or not all(isinstance(text, str) for text in patterns):
        raise UsageError(f"{toml}: {key} in [tool.flwr.app] must be a list of patterns, not empty")
    for pattern in patterns:
        if not any(_spec([pattern]).match_file(file) for file in published):
            raise UsageError(f"{toml}: {key} pattern '{pattern}' matches no file that Flower packs")
    return _spec(patterns)


def _fab(path: Path, document: dict[str, Any], files: list[str]) -> bytes:
    """Make the FAB, byte for byte as `flwr build` does."""
    contents = {"pyproject.toml": tomli_w.dumps(_without_federations(document)).encode()}
    contents |= {file: (path / file).read_bytes() for file in files}
    manifest = "\n".join(
        f"{file},{hashlib.sha256(content).hexdigest()},{len(content) * 8}" for file, content in contents.items()
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in (contents | {".info/CONTENT": manifest.encode()}).items():
            archive.writestr(zipfile.ZipInfo(file, _DATE), content)
    fab = buffer.getvalue()
    if len(fab) > FAB_LIMIT:
        largest = max(contents, key=lambda file: len(contents[file]))
        raise UsageError(
            f"{path}: the app packs to {len(fab) / 1e6:.1f} MB, Flower takes {FAB_LIMIT / 1e6:.1f}; "
            f"the largest file is {largest}: leave it out with fab-exclude in [tool.flwr.app]"
        )
    return fab


def _walk(path: Path) -> list[str]:
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder) / name
            if not file.is_symlink():
                found.append(file.relative_to(path).as_posix())
    return sorted(found)


def _ignored(path: Path) -> "PathSpec[Any]":
    try:
        return _spec((path / ".gitignore").read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return _spec([])


def _spec(patterns: Iterable[str]) -> "PathSpec[Any]":
    kept = [line.strip() for line in patterns if line.strip() and not line.strip().startswith("#")]
    return PathSpec.from_lines(GitIgnoreSpecPattern, kept)


def _without_federations(document: dict[str, Any]) -> dict[str, Any]:
    flwr = {key: value for key, value in document["tool"]["flwr"].items() if key != "federations"}
    return document | {"tool": document["tool"] | {"flwr": flwr}}


def _parse(key: str, text: str, default: ConfigValue) -> ConfigValue:
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        value = text
    if isinstance(default, str) and not isinstance(value, str):
        value = text  # the app wants a string: -c site-label=7 is one
    return _convert(key, value, default)


def _convert(key: str, value: object, default: ConfigValue) -> ConfigValue:
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(default):
        return value
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    raise UsageError(f"-c {key}={value}: the app wants {kinds[type(default)]}, as in {key}={_toml(default)}")


def _toml(value: ConfigValue) -> str:
    return tomli_w.dumps({"v": value}).partition("= ")[2].strip()
