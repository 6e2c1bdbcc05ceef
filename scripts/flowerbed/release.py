"""Releases: Flower and the app's dependencies, locked by hash, as one archive that hosts install offline.

A release is made once, on the operator's machine: `lock` resolves, `build` fetches, compiles and packs. The
module `flowerbed.federation.release` installs the archive; a host never resolves or downloads anything.

A federation's release comes from two files in its folder: `release.in` names the apps' dependencies, one a
line, as pip reads them; `release.lock` pins them and Flower, with the hash of every file. Only a missing lock
is resolved. Packages come from where pip and uv find them by this machine's environment, and from the indexes and
folders that `release.in` names as pip reads them, by `--extra-index-url` and `--find-links`. Hosts with another
Python have a lock of their own, `release-3.13.lock`, with the same versions where they can be had.
"""

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from uv import find_uv_bin

from flowerbed.errors import EnvironmentLacks, UsageError, WorkFailed
from flowerbed.federation import DEFAULT_PYTHON, FederationFolder
from flowerbed.paths import REPOSITORY

SCHEMA = 1
BUILD = REPOSITORY / "build"
Progress = Callable[[str], None]

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
_TARGET = re.compile(r"^# target: python (\S+), (\S+), glibc (\S+)$", re.MULTILINE)
_REQUIREMENTS = re.compile(r"^# requirements: (.*)$", re.MULTILINE)
# Test suites inside packages are a quarter of all byte code, and no service imports them.
_NEVER_IMPORTED = "/tests/"


@dataclass(frozen=True)
class Target:
    """The hosts that a release is for: Python's minor version, the machine, the oldest C library."""

    python: str = DEFAULT_PYTHON
    arch: str = "x86_64"
    glibc: str = "2.34"

    def __post_init__(self) -> None:
        """Refuse what is no target."""
        for value, form, example in (
            (self.python, r"3\.\d+", "3.11"),
            (self.arch, r"x86_64|aarch64", "x86_64"),
            (self.glibc, r"2\.\d+", "2.34"),
        ):
            if not re.fullmatch(form, value):
                raise UsageError(f"release target: '{value}' is not possible, write it like {example}")

    def __str__(self) -> str:
        """The form in a lock's header."""
        return f"python {self.python}, {self.arch}, glibc {self.glibc}"

    @property
    def uv_platform(self) -> str:
        """What uv calls this platform."""
        return f"{self.arch}-manylinux_{self.glibc.replace('.', '_')}"

    @property
    def pip_platforms(self) -> list[str]:
        """Tags of all wheels that run there, newest first: pip does not derive the older ones."""
        newest = int(self.glibc.split(".")[1])
        tags = [f"manylinux_2_{minor}_{self.arch}" for minor in range(newest, 4, -1)]
        aliases = {"manylinux2014": 17, "manylinux2010": 12, "manylinux1": 5}
        return tags + [f"{name}_{self.arch}" for name, minor in aliases.items() if minor <= newest]


@dataclass(frozen=True)
class Program:
    """The package that gives a release its version, and the command that proves it on a host."""

    package: str
    command: tuple[str, ...]
    answer: str

    def pinned(self) -> str:
        """The requirement on the version installed here: pyproject.toml is the one place that sets it."""
        return f"{self.package}=={metadata.version(self.package)}"


@dataclass(frozen=True)
class Sources:
    """Where packages come from, beside the usual index."""

    indexes: tuple[str, ...] = ()
    """Addresses of further indexes, such as PyTorch's for its CPU builds."""
    folders: tuple[str, ...] = ()
    """Folders with wheels, or pages that link to wheels."""

    def here(self) -> "Sources":
        """These, and those that the environment names for pip or for uv: each is to find what the other finds."""
        return Sources(
            tuple(dict.fromkeys([*self.indexes, *_from_environment("EXTRA_INDEX_URL")])),
            tuple(dict.fromkeys([*self.folders, *_from_environment("FIND_LINKS")])),
        )

    def options(self) -> list[str]:
        """The options that pip and uv have for it."""
        indexes = [word for index in self.indexes for word in ("--extra-index-url", index)]
        return indexes + [word for folder in self.folders for word in ("--find-links", folder)]


def _from_environment(name: str) -> list[str]:
    return [
        part for tool in ("PIP", "UV") for part in re.split(r"[\s,]+", os.environ.get(f"{tool}_{name}", "")) if part
    ]


FLOWER = Program("flwr", ("flower-supernode", "--version"), "Flower version: {version}")
SUPPORTED = SpecifierSet(">=1.40,<1.43")
"""The versions of Flower that tests/upgrade goes through."""


@dataclass(frozen=True)
class Release:
    """One built release.

    `id` is `<Flower's version>-<hash of lock and target>`, `archive` is the file to install, `packages` maps
    the name of every package to its version.
    """

    id: str
    archive: Path
    lock: Path
    version: str
    target: Target
    packages: dict[str, str]

    @property
    def size(self) -> int:
        """The archive's size in bytes."""
        return self.archive.stat().st_size


def flower_version() -> str:
    """Flower's version on this machine, and so in new locks."""
    return metadata.version("flwr")


def requirements_of(app: Path) -> list[str]:
    """Read the dependencies of an app's pyproject.toml, without Flower, which every release has.

    Raises UsageError when the file is missing or no app's.
    """
    file = app / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    except FileNotFoundError:
        raise UsageError(f"{app} is no app: it has no pyproject.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no TOML: {error}") from None
    return [line for line in _checked(project.get("dependencies", []), file) if _name_in(line) != FLOWER.package]


def read_requirements(file: Path) -> list[str]:
    """Read a `release.in`: one requirement a line, `#` starts a comment; `flwr==1.40.0` is another Flower than here."""
    return _checked([line for line in _lines(file) if not line.startswith("-")], file)


def read_sources(file: Path, base: Path | None = None) -> Sources:
    """Read where a `release.in` lets packages come from, beside the usual index.

    A folder is relative to `base`, or else to the file's own folder, as pip has it.
    Raises UsageError for an option that is none of these.
    """
    found: dict[str, list[str]] = {"--extra-index-url": [], "--find-links": []}
    for line in _lines(file):
        option, _, value = re.sub(r"[\s=]+", " ", line, count=1).partition(" ")
        if option in found and value:
            found[option].append(value)
        elif line.startswith("-"):
            raise UsageError(
                f"{file}: '{line}' is not possible: of pip's options there are {' and '.join(found)} ADDRESS"
            )
    near = (base or file.parent).resolve()
    folders = (each if "://" in each else str(near / each) for each in found["--find-links"])
    return Sources(tuple(found["--extra-index-url"]), tuple(folders))


def _lines(file: Path) -> list[str]:
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _checked(requirements: list[str], source: Path) -> list[str]:
    kept = []
    for line in requirements:
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"{source}: '{line}' is no requirement: {reason}") from None
        if requirement.url:
            raise UsageError(f"{source}: '{line}' names an address: a release holds indexed packages alone")
        if canonicalize_name(requirement.name) != FLOWER.package or requirement.specifier:
            kept.append(str(requirement))
    return sorted(set(kept))


def lock(
    requirements: list[str],
    out: Path,
    *,
    target: Target | None = None,
    program: Program = FLOWER,
    like: Path | None = None,
    sources: Sources = Sources(),
) -> Path:
    """Pin Flower and `requirements` with the hashes of their files, and write them to `out`, atomically.

    Flower's version is the one installed here, unless `requirements` names another.
    Packages may come from `sources`, too. Where it can be, a package gets the version that it has in the lock `like`.
    The lock names no package index.
    Raises WorkFailed with uv's reason when there is no solution.
    """
    target = target or Target()
    wanted = _checked(requirements, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".lock-", dir=out.parent) as folder:
        work = Path(folder)
        named = any(_name_in(line) == program.package for line in wanted)
        all_of_them = wanted if named else [program.pinned(), *wanted]
        (work / "release.in").write_text("\n".join(all_of_them) + "\n", encoding="utf-8")
        if like is not None and like.exists():
            pins = [f"{name}=={version}" for name, version in _PIN.findall(like.read_text(encoding="utf-8"))]
            (work / "release.lock").write_text("\n".join(pins) + "\n", encoding="utf-8")
        command = [find_uv_bin(), "pip", "compile", "--quiet", "release.in", "--output-file", "release.lock"]
        command += ["--generate-hashes", "--only-binary", ":all:", "--no-header", "--no-annotate"]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--no-sources", *_uv_sources(sources)]
        command += ["--python-version", target.python, "--python-platform", target.uv_platform]
        _run(command, f"lock {' with '.join([all_of_them[0], ', '.join(all_of_them[1:]) or 'nothing else'])}", cwd=work)
        resolved = (work / "release.lock").read_text(encoding="utf-8")
        header = f"# target: {target}\n# requirements: {', '.join(wanted)}\n"
        (work / "release.lock").write_text(header + resolved, encoding="utf-8")
        (work / "release.lock").replace(out)
    return out


def _uv_sources(sources: Sources) -> list[str]:
    """uv would otherwise take a package from the first index that has any version of it, and pip from all."""
    here = sources.here()
    return [*here.options(), *(["--index-strategy", "unsafe-best-match"] if here.indexes else [])]


def add(federation: FederationFolder, requirements: list[str], progress: Progress = lambda _: None) -> list[str]:
    """Put requirements into a federation's release.in and make its locks again; `up` then installs the release.

    A requirement replaces one of the same package; all other packages keep their versions where they can. Gives what
    release.in names now. Raises UsageError for what is no requirement, WorkFailed when there is no solution; then
    nothing has changed.
    """
    source = federation.lock.with_suffix(".in")
    text = source.read_text(encoding="utf-8") if source.exists() else ""
    new = {canonicalize_name(Requirement(line).name): line for line in _checked(requirements, source)}
    kept = [line for line in text.splitlines() if _name_in(line) not in new]
    text_now = "\n".join([*kept, *new.values()]) + "\n"
    locks = sorted(federation.path.glob("release*.lock")) or [federation.lock]
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=federation.path) as folder:
        work = Path(folder)
        (work / source.name).write_text(text_now, encoding="utf-8")
        asked = read_requirements(work / source.name)
        sources = read_sources(work / source.name, federation.path)
        for locked in locks:
            header = _TARGET.search(locked.read_text(encoding="utf-8")) if locked.exists() else None
            target = Target(*header.groups()) if header else Target()
            progress(f"locking Flower with {', '.join(asked)} for Python {target.python}")
            lock(asked, work / locked.name, target=target, like=locked, sources=sources)
        for locked in locks:
            (work / locked.name).replace(locked)
        (work / source.name).replace(source)
    return asked


def _name_in(line: str) -> str:
    """The package that a line of release.in names; empty for a comment or an option."""
    requirement = line.split("#", 1)[0].strip()
    return canonicalize_name(Requirement(requirement).name) if requirement and requirement[0] != "-" else ""


def of(federation: FederationFolder, progress: Progress = lambda _: None, python: str = DEFAULT_PYTHON) -> Release:
    """Build the release that a federation's hosts with one Python are to run: the held one after a rollback.

    Raises as `wanted` does.
    """
    held = federation.held / federation.lock_for(python).name
    if not held.exists():
        return wanted(federation, progress, python)
    source = federation.lock.with_suffix(".in")
    return build(held, sources=read_sources(source) if source.exists() else Sources(), progress=progress)


def wanted(federation: FederationFolder, progress: Progress = lambda _: None, python: str = DEFAULT_PYTHON) -> Release:
    """Build the release that the federation's own lock names; the lock is made first if there is none.

    Raises UsageError when `release.in` asks for something else than the lock was made from, the lock is for
    another Python, or it names a Flower that is not supported.
    """
    locked = federation.lock_for(python)
    source = federation.lock.with_suffix(".in")
    asked = read_requirements(source) if source.exists() else []
    sources = read_sources(source) if source.exists() else Sources()
    if not locked.exists():
        progress(f"locking Flower with {', '.join(asked) or 'no app dependencies'} for Python {python}")
        lock(asked, locked, target=Target(python), like=federation.lock, sources=sources)
    text = locked.read_text(encoding="utf-8")
    made_from, made_for = _REQUIREMENTS.search(text), _TARGET.search(text)
    if source.exists() and made_from and made_from[1] != ", ".join(asked):
        raise UsageError(f"{source} differs from {locked}: remove the lock to make it again")
    # The first lock may be for any one Python, where all hosts have the same.
    if made_for and made_for[1] != python and locked != federation.lock:
        raise UsageError(f"{locked} is for Python {made_for[1]}: remove it to make it again")
    flower = dict(_PIN.findall(text)).get(FLOWER.package)
    if flower and flower not in SUPPORTED:
        raise UsageError(f"{locked} pins Flower {flower}, and {SUPPORTED} is supported: name another in {source}")
    return build(locked, sources=sources, progress=progress)


def build(
    locked: Path,
    *,
    cache: Path = BUILD,
    program: Program = FLOWER,
    sources: Sources = Sources(),
    progress: Progress = lambda _: None,
) -> Release:
    """Make the release that the lock file `locked` describes, or return it at once if it was made before.

    The release is `<cache>/releases/<id>/`, complete or not there; fetched wheels stay in `<cache>/wheels/`.
    The target is read from the lock's header. Builders that run at the same time wait for each other. Raises
    UsageError for a lock that is none, WorkFailed when a wheel cannot be fetched.
    """
    try:
        text = locked.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{locked} does not exist: make it with flowerbed.release.lock") from None
    header = _TARGET.search(text)
    target = Target(*header.groups()) if header else Target()
    packages: dict[str, str] = {canonicalize_name(name): version for name, version in _PIN.findall(text)}
    for package in (program.package, "uv"):
        if package not in packages:
            raise UsageError(f"{locked} does not pin {package}: every release holds it")
    if "--hash=sha256:" not in text:
        raise UsageError(f"{locked} has no hashes: make it with flowerbed.release.lock")

    version = packages[program.package]
    ident = f"{version}-{_fingerprint(text, target)}"
    home = cache / "releases" / ident
    release = Release(ident, home / f"{ident}.tar", home / "release.lock", version, target, packages)
    with _alone(cache):
        if _complete(release):
            return release
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=cache) as folder:
            made = Path(folder) / ident
            made.mkdir()
            (made / "release.lock").write_text(text, encoding="utf-8")
            unfinished = replace(release, archive=made / f"{ident}.tar", lock=made / "release.lock")
            _make(unfinished, cache, program, sources, progress)
            made.rename(home)
    return release


def _fingerprint(text: str, target: Target) -> str:
    pins = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return hashlib.sha256("\n".join([f"{SCHEMA}", str(target), *pins]).encode()).hexdigest()[:10]


def _complete(release: Release) -> bool:
    try:
        recorded = json.loads((release.archive.parent / "archive.json").read_text(encoding="utf-8"))
        return bool(release.lock.is_file() and recorded["size"] == release.size)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Let one builder work in `cache` at a time."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".release.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(release: Release, cache: Path, program: Program, sources: Sources, progress: Progress) -> None:
    """Fetch, compile and pack into the folder of `release.archive`."""
    with tempfile.TemporaryDirectory(prefix=".tree-", dir=cache) as folder:
        work = Path(folder)
        wheels = work / "wheels"
        progress(f"fetching {len(release.packages)} packages of release {release.id}")
        _fetch(release, wheels, cache / "wheels", sources)
        progress(f"compiling release {release.id}")
        tree = work / "tree"
        site = tree / "lib" / f"python{release.target.python}" / "site-packages"
        _install(release, wheels, site, work / "uv-cache")
        installed = sum(file.stat().st_size for file in tree.rglob("*") if file.is_file())
        bytecode = work / "bytecode.zip"
        files = {"release.lock": release.lock}
        if _compile(release, tree, bytecode):
            files["bytecode.zip"] = bytecode
        files |= {f"wheels/{wheel.name}": wheel for wheel in sorted(wheels.iterdir())}
        progress(f"packing release {release.id}")
        manifest = {
            "schema": SCHEMA,
            "id": release.id,
            "version": release.version,
            "python": release.target.python,
            "arch": release.target.arch,
            "glibc": release.target.glibc,
            "packages": release.packages,
            "installed_bytes": installed,
            "uv": next(name for name in files if name.startswith("wheels/uv-")),
            "check": {"command": program.command, "answer": program.answer.format(version=release.version)},
            "files": {name: _sha256(file) for name, file in files.items()},
        }
        _pack(release.archive, manifest, files)
    record = {"size": release.size, "sha256": _sha256(release.archive)}
    (release.archive.parent / "archive.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


def _fetch(release: Release, wheels: Path, cache: Path, sources: Sources) -> None:
    """Put the wheels of the lock into the folder `wheels`, from `cache` or else from the index and the sources."""
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(release.lock)]
    command += ["--implementation", "cp", "--python-version", release.target.python]
    for platform in release.target.pip_platforms:
        command += ["--platform", platform]
    command += ["--find-links", str(cache), "--dest", str(wheels)]
    try:
        _run([*command, "--no-index"], "fetch from the cache")
    except WorkFailed:
        shutil.rmtree(wheels, ignore_errors=True)
        _run([*command, *sources.here().options()], f"fetch the wheels of {release.id}")
    for wheel in wheels.iterdir():
        kept = cache / wheel.name
        if not kept.exists():
            os.link(wheel, kept)


def _install(release: Release, wheels: Path, site: Path, uv_cache: Path) -> None:
    """Install into a folder as on a host; hosts of another architecture get the same Python files."""
    command = [find_uv_bin(), "--no-config", "pip", "install", "--quiet", "--offline", "--no-index"]
    command += ["--no-deps", "--require-hashes", "--requirement", str(release.lock)]
    command += ["--find-links", str(wheels), "--target", str(site), "--cache-dir", str(uv_cache)]
    command += ["--python-version", release.target.python, "--python-platform", release.target.uv_platform]
    _run(command, f"install {release.id}")


def _compile(release: Release, tree: Path, out: Path) -> bool:
    """Compile the tree, put the byte code alone into the zip `out`; False where there is no such Python here.

    Sites would otherwise spend half a minute of a core on it each. Byte code is the same for one minor
    version of Python; "unchecked": a release's files never change.
    """
    python = _interpreter(release.target.python)
    if python is None:
        return False
    command = [python, "-I", "-m", "compileall", "-q", "-j", "0", "-x", _NEVER_IMPORTED]
    command += ["--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(tree), "-p", f"/opt/flower/releases/{release.id}", str(tree)]
    # Single files that are no Python 3 exist in some packages: they stay without byte code.
    subprocess.run(command, check=False, capture_output=True)
    compiled = sorted(tree.rglob("__pycache__/*.pyc"))
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in compiled:
            entry = zipfile.ZipInfo(file.relative_to(tree).as_posix())
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=1)
    return bool(compiled)


def _interpreter(minor: str) -> str | None:
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == minor:
        return sys.executable
    return shutil.which(f"python{minor}")


def _pack(archive: Path, manifest: dict[str, Any], files: dict[str, Path]) -> None:
    """Write a plain tar, the manifest first: wheels and byte code are compressed already."""
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        text = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
        tar.addfile(_entry("manifest.json", len(text)), io.BytesIO(text))
        for name, file in files.items():
            with file.open("rb") as content:
                tar.addfile(_entry(name, file.stat().st_size), content)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    return entry


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _run(command: list[str], what: str, cwd: Path | None = None) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd)
    except FileNotFoundError:
        raise EnvironmentLacks(f"{command[0]} is missing: install Flowerbed's dependencies again") from None
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in (error.stderr or error.stdout).splitlines()]
        reason = " ".join(line for line in lines if line and not line.startswith("WARNING"))
        raise WorkFailed(f"cannot {what}: {reason[:400] or f'exit code {error.returncode}'}") from None
