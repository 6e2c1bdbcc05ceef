"""An app's run config and what overrides it: profiles of the app, TOML files, and `key=value`, in that order."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from flowerbed.errors import UsageError
from flowerbed.runs.flwr import ConfigValue

Override = Mapping[str, object] | Path | str
"""Values by their keys, a TOML file, or a text: `key=value` or the path of a TOML file."""

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


@dataclass(frozen=True)
class Settings:
    """What can be set of an app."""

    app: str
    """The app's name, for messages."""
    defaults: Mapping[str, ConfigValue]
    """The run config; nested keys are joined with dots, as the app sees them."""
    profiles: Mapping[str, Mapping[str, ConfigValue]]
    """Named sets of overrides, from [tool.flowerbed.profiles]."""

    def overrides(self, items: Iterable[Override], profile: str | None = None) -> dict[str, ConfigValue]:
        """Settle what overrides the defaults; of two values for one key the later one counts, a profile comes first.

        Raises UsageError for a profile or a key that the app does not have, and for a value of another type.
        """
        found: dict[str, ConfigValue] = {}
        if profile is not None:
            found |= self._profile(profile)
        for item in items:
            found |= self._read(item)
        return found

    def _profile(self, name: str) -> Mapping[str, ConfigValue]:
        if name not in self.profiles:
            known = ", ".join(sorted(self.profiles)) or "none"
            raise UsageError(f"profile {name}: {self.app} has none of this name (it has: {known})")
        return self.profiles[name]

    def _read(self, item: Override) -> dict[str, ConfigValue]:
        if isinstance(item, Mapping):
            return self.checked(item, "")
        if isinstance(item, str) and "=" in item:
            key, text = split(item)
            return {key: _parse(key, text, self._default(key, "-c "))}
        file = Path(item).expanduser()
        if file.suffix != ".toml":
            raise UsageError(f"-c {item}: write it as key=value, or give a .toml file")
        return self.checked(load(file), f"{file}: ")

    def checked(self, values: Mapping[str, object], where: str) -> dict[str, ConfigValue]:
        """Check values that are typed already; `where` goes before a message."""
        return {key: convert(key, value, self._default(key, where), where) for key, value in values.items()}

    def _default(self, key: str, where: str) -> ConfigValue:
        if key not in self.defaults:
            known = ", ".join(sorted(self.defaults)) or "none"
            raise UsageError(
                f"{where}{key}: {self.app} has no such setting in [tool.flwr.app.config] (it has: {known})"
            )
        return self.defaults[key]


def of(app: str, section: Mapping[str, Any], profiles: object, toml: Path) -> Settings:
    """Read an app's settings from its pyproject.toml.

    `section` is the table [tool.flwr.app.config], `profiles` [tool.flowerbed.profiles]. Raises UsageError for a
    value that Flower does not take, and for a profile that does not fit the run config.
    """
    defaults = flat(section, f"{toml}: {{}} in [tool.flwr.app.config]")
    bare = Settings(app, defaults, {})
    found = {}
    if not isinstance(profiles, Mapping):
        raise UsageError(f"{toml}: [tool.flowerbed.profiles] must hold a table for each profile")
    for name, values in profiles.items():
        place = f"[tool.flowerbed.profiles.{name}]"
        if not isinstance(values, Mapping):
            raise UsageError(f"{toml}: {place} must be a table, as in num-server-rounds = 1")
        found[name] = bare.checked(flat(values, f"{toml}: {{}} in {place}"), f"{toml}: {place} ")
    return Settings(app, defaults, found)


def load(file: Path) -> dict[str, ConfigValue]:
    """Read a TOML file of run config; nested keys are joined with dots. UsageError for one that is none."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"-c {file}: it cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from None
    return flat(document, f"{file}: {{}}")


def loose(items: Iterable[Override]) -> dict[str, ConfigValue]:
    """Read overrides where nothing says their types: what TOML does not know as a boolean or a number is a string."""
    found: dict[str, ConfigValue] = {}
    for item in items:
        if isinstance(item, Mapping):
            found |= flat(item, "config: {}")
        elif isinstance(item, str) and "=" in item:
            key, text = split(item)
            value = _toml_value(text)
            found[key] = value if isinstance(value, bool | int | float | str) else text
        else:
            found |= load(Path(item).expanduser())
    return found


def split(item: str) -> tuple[str, str]:
    """Take `key=value` apart."""
    key, sign, text = item.partition("=")
    if not sign or not key.strip():
        raise UsageError(f"-c {item}: write it as key=value")
    return key.strip(), text.strip()


def flat(table: Mapping[str, Any], place: str, prefix: str = "") -> dict[str, ConfigValue]:
    """Join nested keys with dots; `place` says where a key stands, with {} for the key."""
    found: dict[str, ConfigValue] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= flat(value, place, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            found[f"{prefix}{key}"] = value
        else:
            raise UsageError(f"{place.format(prefix + key)} must be a boolean, a number or a string")
    return found


def convert(key: str, value: object, default: ConfigValue, where: str = "-c ") -> ConfigValue:
    """The value as the type that the default has; UsageError when it is of another."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(default):
        return value
    example = tomli_w.dumps({"v": default}).partition("= ")[2].strip()
    raise UsageError(f"{where}{key}={value}: the app wants {_KINDS[type(default)]}, as in {key}={example}")


def _parse(key: str, text: str, default: ConfigValue) -> ConfigValue:
    value = _toml_value(text)
    if isinstance(default, str) and not isinstance(value, str):
        value = text  # the app wants a string: -c site-label=7 is one
    return convert(key, value, default)


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text
