"""The app of a session: the client code, and the bridge as its ServerApp."""

import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from flowerbed.errors import UsageError
from flowerbed.runs import app as apps
from flowerbed.runs import source
from flowerbed.runs.flwr import ConfigValue

PATIENCE = 600.0
"""Seconds for which a session without its operator goes on."""
KEY, LASTS = "session-key-sha256", "session-patience"
"""What the bridge finds in its run config: the hash of the operator's key, and the seconds it waits for one."""
_PACKAGE = "flowerbed_session"
_MODULES = ("bridge.py", "wire.py")
_SUFFIX = "-session"
_NAME_LIMIT = 32


@contextmanager
def packed(client_code: str | Path, config: Mapping[str, ConfigValue]) -> Iterator[source.Source]:
    """Give the app for as long as the context lasts; it packs to the same FAB whenever the code is the same.

    `client_code` is a Python file with a ClientApp `app`, or an app whose ClientApp is taken: a folder or a git
    reference. `config` is the run config of a file's app; that of a folder's is in the app. Raises UsageError for what
    is wrong with the code.
    """
    with tempfile.TemporaryDirectory(prefix="flowerbed-session-") as scratch:
        file = Path(client_code).expanduser()
        if file.suffix == ".py" or file.is_file():
            folder = _of_file(file, config, Path(scratch))
            origin = str(file.resolve())
        else:
            with source.opened(str(client_code)) as opened:
                folder = _of_app(apps.check(opened.folder), Path(scratch))
                origin = opened.origin
        yield source.Source(folder, origin)


def _of_file(file: Path, config: Mapping[str, ConfigValue], scratch: Path) -> Path:
    if not file.is_file() or file.suffix != ".py":
        raise UsageError(f"{file} is not a Python file: give one with a ClientApp `app` in it, or an app's folder")
    apps.check_module(file, "app")
    if file.stem == _PACKAGE:
        raise UsageError(f"{file}: the session's own package has this name: rename the file")
    folder = scratch / "app"
    folder.mkdir()
    shutil.copyfile(file, folder / file.name)
    app = {"publisher": "flowerbed", "components": {"clientapp": f"{file.stem}:app"}, "config": dict(config)}
    _finish(folder, {"project": {"name": "client", "version": "0.0.0"}, "tool": {"flwr": {"app": app}}})
    return folder


def _of_app(app: apps.App, scratch: Path) -> Path:
    folder = app.copy(scratch)
    document = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
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
    name = document["project"]["name"]
    document["project"]["name"] = f"{name[: _NAME_LIMIT - len(_SUFFIX)]}{_SUFFIX}"
    section = document["tool"]["flwr"]["app"]
    section["components"]["serverapp"] = f"{_PACKAGE}.bridge:app"
    section["config"] = {**section.get("config", {}), KEY: "", LASTS: PATIENCE}
    (folder / "pyproject.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
