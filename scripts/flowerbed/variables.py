"""The variables that one may set for a host, and what is wrong with a value, by the roles' argument specs."""

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from flowerbed import ssh_options
from flowerbed.errors import UsageError
from flowerbed.paths import ANSIBLE

Spec = Mapping[str, Any]

PYTHONS = ("3.11", "3.12", "3.13")
_HIGHEST_PORT = 65535
# The driver reads these from the hosts file alone, and Ansible from there too.
WAY: dict[str, Spec] = {
    "ansible_host": {"type": "str"},
    "ansible_port": {"type": "int"},
    "ansible_user": {"type": "str"},
    "flowerbed_jump": {"type": "str"},
    "flowerbed_python": {"type": "str", "choices": list(PYTHONS)},
}
_OF_ANSIBLE: dict[str, Spec] = {
    **WAY,
    "ansible_become": {"type": "bool"},
    "ansible_become_user": {"type": "str"},
    "ansible_python_interpreter": {"type": "str"},
    "ansible_ssh_common_args": {"type": "str"},
    "ansible_ssh_private_key_file": {"type": "str"},
    "flowerbed_session": {"type": "dict"},
    "flowerbed_schema": {"type": "int"},
    "flowerbed_federation": {"type": "str"},
}
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?")
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_FORMS = {
    "ansible_host": (_ADDRESS, "an address or a name, without user and port"),
    "ansible_user": (_USER, "a user's name"),
    "supernode_proxy": (re.compile(r"(http://[^/@\s]+:[0-9]+/?)?"), "http://address:port"),
    "supernode_gateway": (re.compile(r"(\S+:[0-9]+)?"), "address:port"),
    "supernode_data_path": (re.compile(r"(/.*)?"), "an absolute path"),
}
_BOOLEANS = {"yes", "no", "true", "false", "on", "off"}


def _roles() -> list[str]:
    return sorted(file.parents[1].name for file in (ANSIBLE / "roles").glob("*/meta/argument_specs.yml"))


@cache
def known() -> dict[str, Spec]:
    """Every variable that one may set, and what the roles' argument specs say of it."""
    found = dict(_OF_ANSIBLE)
    for role in _roles():
        document = yaml.safe_load((ANSIBLE / "roles" / role / "meta" / "argument_specs.yml").read_text())
        found |= document["argument_specs"]["main"]["options"]
    return found


def strange(name: str) -> str:
    """Why a variable that is not known looks like a mistake; empty where it may be the user's own."""
    close = difflib.get_close_matches(name, known(), n=1, cutoff=0.8)
    if close:
        return f"is unknown: did you mean {close[0]}?"
    if name.startswith(tuple(f"{role}_" for role in (*_roles(), "flowerbed"))):
        return f"is unknown; the nearest variable is {difflib.get_close_matches(name, known(), n=1, cutoff=0.0)[0]}"
    return ""


def mistakes(name: str, value: Any, spec: Spec) -> Iterator[tuple[str, str]]:
    """What is wrong with a value: where in it, and why."""
    wrong = list(_wrong_type(value, spec))
    if wrong:
        yield from wrong
        return
    if name.endswith("_port") and spec["type"] == "int" and not 1 <= int(value) <= _HIGHEST_PORT:
        yield "", f"{value} is no port: 1 to {_HIGHEST_PORT}"
    if name in _FORMS:
        form, wanted = _FORMS[name]
        if not form.fullmatch(str(value)):
            yield "", f"must be {wanted}"  # the value may hold a password
    if name == "flowerbed_jump" and value:
        try:
            ssh_options.parse_jump(str(value))
        except UsageError as error:
            yield "", str(error)
    if name in ("supernode_node_config", "supernode_labels"):
        for key, one in value.items():
            if not isinstance(one, str | bool | int | float):
                yield f".{key}", f"must be text, a number, true or false, and is {_kind(one)}"


def _wrong_type(value: Any, spec: Spec) -> Iterator[tuple[str, str]]:
    wanted = str(spec.get("type", "str"))
    if not _fits(value, wanted):
        quoted = " (quote it)" if wanted in ("str", "path") or "choices" in spec else ""
        yield "", f"must be {_NAMES.get(wanted, wanted)} and is {_kind(value)}{quoted}"
        return
    choices = spec.get("choices")
    if choices and value not in choices:
        hint = " (quote it)" if str(value) in choices else ""
        yield "", f"'{value}' is not possible: use {' or '.join(map(str, choices))}{hint}"
    entries = [("", value)] if isinstance(value, dict) else []
    if isinstance(value, list):
        entries = [(f"[{index}]", one) for index, one in enumerate(value)]
        for where, one in entries:
            if not _fits(one, str(spec.get("elements", "raw"))):
                yield where, f"must be {_NAMES.get(spec['elements'], spec['elements'])} and is {_kind(one)}"
    options = spec.get("options") or {}
    for where, one in entries:
        if options and isinstance(one, dict):
            yield from _wrong_options(where, one, options)


def _wrong_options(where: str, value: dict[str, Any], options: Mapping[str, Spec]) -> Iterator[tuple[str, str]]:
    for key, one in value.items():
        if key not in options:
            yield f"{where}.{key}", f"is unknown: there are {', '.join(options)}"
        else:
            for inner, message in _wrong_type(one, options[key]):
                yield f"{where}.{key}{inner}", message
    for key, option in options.items():
        if option.get("required") and key not in value:
            yield f"{where}.{key}", "is missing"


_NAMES = {
    "str": "text",
    "path": "a path",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
}


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return kinds.get(type(value), "nothing" if value is None else type(value).__name__)


def _fits(value: Any, wanted: str) -> bool:
    truth = isinstance(value, bool)
    fits = {
        "str": isinstance(value, str | int) and not truth,
        "path": isinstance(value, str),
        "int": (isinstance(value, int) and not truth) or str(value).isdecimal(),
        "float": not truth and re.fullmatch(r"[0-9]*\.?[0-9]+", str(value)) is not None,
        "bool": truth or str(value).lower() in _BOOLEANS,
        "list": isinstance(value, list),
        "dict": isinstance(value, dict),
    }
    return fits.get(wanted, True)
