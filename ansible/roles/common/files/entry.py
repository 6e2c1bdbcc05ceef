# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Finds Flower's programs without the programs beside them.

A package of Flower's programs imports all of them: SuperExec would bring the web client of another program, an app the
SuperNode's web server. Half of the time that they take to start is that, and a quarter of their memory.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any


def program(package: str, name: str) -> Callable[[], Any]:
    """The function `name` of `package`, from the module of that name in it; else from the package as a whole.

    Raises ImportError or AttributeError where there is no such function.
    """
    if package in sys.modules:
        return _as_a_whole(package, name)
    try:
        sys.modules[package] = stand_in = _stand_in(package)
        found = getattr(importlib.import_module(f"{package}.{name}"), name)
        if not isinstance(found, types.FunctionType):
            raise AttributeError(f"{package}.{name}.{name} is no function")
    except (ImportError, AttributeError):
        sys.modules.pop(package, None)
        return _as_a_whole(package, name)
    setattr(stand_in, name, found)
    return found


def _as_a_whole(package: str, name: str) -> Callable[[], Any]:
    found: Callable[[], Any] = getattr(importlib.import_module(package), name)
    return found


def _stand_in(package: str) -> types.ModuleType:
    """A package of the same modules, which becomes the true one when it is asked for anything else."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{package} is no package")
    module = types.ModuleType(package)
    module.__spec__, module.__path__ = spec, list(spec.submodule_search_locations)

    def others(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(package) is module:
            del sys.modules[package]
        return getattr(importlib.import_module(package), name)

    vars(module)["__getattr__"] = others
    return module
