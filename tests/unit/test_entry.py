"""Flower's programs on hosts start without the programs beside them, in each supported version of Flower."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_host_programs import instance, program

from flowerbed.paths import ANSIBLE

FILES = ANSIBLE / "roles" / "common" / "files"
superexec = program("superexec")
PROGRAMS = [superexec.PROGRAM, *((package, name) for package, name, _ in instance.PROGRAMS.values())]
# What else of the package was imported, and whether that can still be had as Flower has it.
_SCRIPT = """
import importlib, json, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import entry
package, name = sys.argv[2:]
found = entry.program(package, name)
others = [one.name for one in pkgutil.iter_modules(sys.modules[package].__path__) if one.name != name]
loaded = [one for one in others if f"{package}.{one}" in sys.modules]
again = entry.program(package, name)
exec(f"from {package} import {others[0]} as other")
print(json.dumps({"name": found.__name__, "same": again is found, "others": others, "loaded": loaded,
                  "other": other.__name__, "callable": callable(other)}))
"""


@pytest.mark.parametrize(("package", "name"), PROGRAMS)
def test_a_program_comes_without_those_beside_it_and_they_can_be_had_later(
    flower: Path, package: str, name: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(FILES), package, name],
        env={"PYTHONPATH": str(flower), "FLWR_TELEMETRY_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["name"], told["same"], told["loaded"]) == (name, True, [])
    assert told["others"]
    assert (told["callable"], told["other"]) == (True, told["others"][0])


def test_a_package_of_another_shape_is_imported_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shaped").mkdir()
    (tmp_path / "shaped" / "__init__.py").write_text("def begin(): return 'from the package'\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = program("entry")
    assert entry.program("shaped", "begin")() == "from the package"
    with pytest.raises(ImportError):
        entry.program("nowhere.at.all", "begin")
    with pytest.raises(AttributeError):
        entry.program("shaped", "end")
