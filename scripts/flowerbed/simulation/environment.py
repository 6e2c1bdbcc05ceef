"""The Python environment of a simulation: the federation's release as the hosts have it, and the simulation's engine.

It is made once for a release and kept beside the releases; after that nothing is fetched.
"""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from flowerbed.errors import EnvironmentLacks, WorkFailed
from flowerbed.release import BUILD, Release

Progress = Callable[[str], None]
PROCESS = Path(__file__).with_name("process.py")
"""What runs in the environment in place of Flower's `flwr-simulation`."""
_FORM = 2


@dataclass(frozen=True)
class Environment:
    """A Python environment that holds a release and the simulation's engine."""

    home: Path
    modules: frozenset[str]
    """Names of the modules that the release brings; what the engine brings is not for apps."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / "bin" / "python"


def of(release: Release, progress: Progress = lambda _: None, cache: Path = BUILD) -> Environment:
    """The release's environment, which is made first if there is none.

    Raises EnvironmentLacks where this machine lacks the release's Python, WorkFailed when the engine cannot be
    fetched or does not fit to the release.
    """
    pinned = hashlib.sha256(f"{_FORM}\n{release.lock.read_text(encoding='utf-8')}".encode()).hexdigest()[:8]
    home = cache / "simulations" / f"{release.id}-{pinned}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with _alone(home.parent):
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            progress(f"making the environment of release {release.id} for simulations")
            try:
                _make(release, home, cache)
            except BaseException:
                shutil.rmtree(home, ignore_errors=True)
                raise
            (home / "complete").touch()
        _check(home)
    return Environment(home, frozenset((home / "modules.txt").read_text(encoding="utf-8").split()))


def _check(home: Path) -> None:
    """See once for an environment and a PROCESS whether they fit together."""
    fits = home / f"fits-{hashlib.sha256(PROCESS.read_bytes()).hexdigest()[:8]}"
    if not fits.exists():
        done = subprocess.run(
            [str(home / "bin" / "python"), "-P", str(PROCESS), "--check"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise WorkFailed(done.stderr.strip().splitlines()[-1])
        fits.touch()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process make environments at a time."""
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(release: Release, home: Path, cache: Path) -> None:
    python = release.target.python
    with tempfile.TemporaryDirectory(prefix=".making-", dir=home.parent) as folder:
        work = Path(folder)
        kept = ["--cache-dir", str(work / "cache")]
        _uv(["venv", "--quiet", "--no-python-downloads", "--python", python, *kept, str(home)], release)
        into = ["--python", str(home / "bin" / "python"), *kept]
        own = ["pip", "install", "--quiet", "--offline", "--no-index", "--no-deps", "--require-hashes", *into]
        _uv([*own, "--find-links", str(cache / "wheels"), "--requirement", str(release.lock)], release)
        (home / "modules.txt").write_text("\n".join(sorted(_modules(home))), encoding="utf-8")
        # Flower itself names the version of the engine that it works with; the release's own versions stay.
        fixed = work / "release.txt"
        fixed.write_text("".join(f"{name}=={version}\n" for name, version in release.packages.items()), "utf-8")
        wanted = work / "engine.in"
        wanted.write_text(f"flwr[simulation]=={release.version}\n", encoding="utf-8")
        locked = work / "engine.lock"
        lock = ["pip", "compile", "--quiet", "--generate-hashes", "--only-binary", ":all:", "--no-header", *kept]
        lock += ["--no-annotate", "--constraint", str(fixed), "--output-file", str(locked)]
        lock += ["--python-version", python, "--python-platform", release.target.uv_platform]
        _uv([*lock, str(wanted)], release)
        install = ["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--compile-bytecode", *into]
        _uv([*install, "--find-links", str(cache / "wheels"), "--requirement", str(locked)], release)


def _modules(home: Path) -> set[str]:
    entries = home.glob("lib/python3.*/site-packages/*")
    return {one.name.partition(".")[0] for one in entries if one.suffix in (".py", ".so") or one.is_dir()}


def _uv(words: list[str], release: Release) -> None:
    try:
        subprocess.run([find_uv_bin(), *words], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise EnvironmentLacks("uv is missing: install Flowerbed's dependencies again") from None
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.split())[:400] or f"uv ended with {error.returncode}"
        if words[0] == "venv":
            raise EnvironmentLacks(
                f"Python {release.target.python}, which release {release.id} is for, is missing here: {reason}"
            ) from None
        raise WorkFailed(f"cannot make the environment of release {release.id} for simulations: {reason}") from None
