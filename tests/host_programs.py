"""The programs that a role puts on a host, as modules."""

import importlib.util
import sys
from types import ModuleType

from flowerbed.paths import ANSIBLE


def host_program(role: str, name: str) -> ModuleType:
    """One of a role's programs."""
    file = ANSIBLE / "roles" / role / "files" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"host_{role}_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module
