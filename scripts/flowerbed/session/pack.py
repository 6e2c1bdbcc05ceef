"""The app of a session: the client code, and the bridge as its ServerApp."""

import shutil
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from flowerbed.errors import UsageError
from flowerbed.runs import app as apps
from flowerbed.runs import settings, source
from flowerbed.runs.flwr import ConfigValue
from flowerbed.runs.settings import Override

PATIENCE = 600.0
"""Seconds for which a session without its operator goes on."""
KEY, LASTS = "session-key-sha256", "session-patience"
"""What the bridge finds in its run config: the hash of the operator's key, and the seconds it waits for one."""
_PACKAGE = "flowerbed_session"
_FOLDER = ".client-code"  # no app has this name
_MODULES = ("bridge.py", "wire.py")
_SUFFIX = "-session"
_NAME_LIMIT = 32


@contextmanager
def packed(
    client_code: str | Path, config: Override | Iterable[Override] = ()
) -> Iterator[tuple[source.Source, dict[str, ConfigValue]]]:
    """Give the app, and what overrides its run config; it packs to the same FAB whenever the code is the same.

    `client_code` is a Python file with a ClientApp `app`, or an app whose ClientApp is taken: a folder, a git
    reference or a .fab file. `config` overrides that app's run config, and is a file's run config and so part of its
    FAB. Raises UsageError for what is wrong with either.
    """
    items = [config] if isinstance(config, str | Path | Mapping) else list(config)
    file = Path(client_code).expanduser()
    if file.suffix == ".py" or (file.is_file() and file.suffix != ".fab"):
        with _scratch(file.parent) as folder:
            _of_file(file, settings.loose(items), folder)
            yield source.Source(folder, str(file.resolve())), {}
        return
    with source.opened(str(client_code)) as opened, _scratch(opened.folder) as folder:
        app = apps.check(opened.folder)
        yield source.Source(_of_app(app, folder), opened.origin), app.settings.overrides(items)


@contextmanager
def _scratch(shown: Path) -> Iterator[Path]:
    """A folder for the app; a message about a file in it names the one that the user knows, in `shown`."""
    with tempfile.TemporaryDirectory(prefix="flowerbed-session-") as made:
        folder = Path(made).resolve() / _FOLDER
        folder.mkdir()
        try:
            yield folder
        except UsageError as error:
            raise UsageError(str(error).replace(str(folder), str(shown))) from None


def _of_file(file: Path, config: Mapping[str, ConfigValue], folder: Path) -> None:
    if not file.is_file() or file.suffix != ".py":
        raise UsageError(f"{file} is not a Python file: give one with a ClientApp `app` in it, or an app's folder")
    apps.check_module(file, "app")
    if file.stem == _PACKAGE:
        raise UsageError(f"{file}: the session's own package has this name: rename the file")
    shutil.copyfile(file, folder / file.name)
    app = {"publisher": "flowerbed", "components": {"clientapp": f"{file.stem}:app"}, "config": dict(config)}
    project = {"name": source.name_of(file), "version": "0.0.0"}
    _finish(folder, {"project": project, "tool": {"flwr": {"app": app}}})


def _of_app(app: apps.App, into: Path) -> Path:
    folder = app.copy(into.parent).rename(into)
    document = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    document["project"]["name"] = f"{app.name[: _NAME_LIMIT - len(_SUFFIX)]}{_SUFFIX}"
    section = document["tool"]["flwr"]["app"]
    if "fab-include" in section:
        section["fab-include"].append(f"/{_PACKAGE}/*.py")
    _finish(folder, document)
    return folder


def _finish(folder: Path, document: dict[str, Any]) -> None:
    """Put the bridge in as the ServerApp."""
    package = folder / _PACKAGE
    package.mkdir(exist_ok=True)
    for module in _MODULES:
        shutil.copyfile(Path(__file__).with_name(module), package / module)
    (package / "__init__.py").write_text('"""What joins a session to its operator."""\n', encoding="utf-8")
    section = document["tool"]["flwr"]["app"]
    section["components"]["serverapp"] = f"{_PACKAGE}.bridge:app"
    section["config"] = {**section.get("config", {}), KEY: "", LASTS: PATIENCE}
    (folder / "pyproject.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
