"""A release is built once, from hashes alone; a host gets all of it or nothing, and can go back.

The releases here are real but small: uv takes Flower's place, since it answers its version like Flower and starts fast.
"""

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowerbed import release
from flowerbed.errors import UsageError, WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.paths import ANSIBLE, INVENTORIES
from flowerbed.release import Program, Release, Target

UV = Program("uv", ("uv", "--version"), "uv {version}")
PYTHON = "/usr/bin/python3"  # what a host has
MINOR = subprocess.check_output([PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True).strip()
HERE = Target(python=MINOR, arch=os.uname().machine)
MODULE = ANSIBLE / "plugins" / "modules" / "release.py"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="module")
def lock(cache: Path) -> Path:
    return release.lock(["iniconfig"], cache / "with.lock", target=HERE, program=UV)


@pytest.fixture(scope="module")
def built(lock: Path, cache: Path) -> Release:
    return release.build(lock, cache=cache, program=UV)


@pytest.fixture(scope="module")
def older(cache: Path) -> Release:
    return release.build(release.lock([], cache / "older.lock", target=HERE, program=UV), cache=cache, program=UV)


# Locks


def test_a_lock_pins_every_package_by_hash_and_names_no_index(lock: Path) -> None:
    text = lock.read_text()
    pins = [line for line in text.splitlines() if "==" in line]
    assert [pin.split("==")[0] for pin in pins] == ["iniconfig", "uv"]
    assert text.count("--hash=sha256:") >= len(pins)
    assert "://" not in text


def test_this_machines_configuration_stays_out_of_the_lock(
    lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_EXTRA_INDEX_URL", tmp_path.as_uri())
    assert release.lock(["iniconfig"], tmp_path / "a.lock", target=HERE, program=UV).read_text() == lock.read_text()


def test_packages_come_from_the_indexes_and_folders_that_release_in_names(tmp_path: Path) -> None:
    source = tmp_path / "release.in"
    source.write_text("--extra-index-url https://one.example/cpu#sub=1  # theirs\n--find-links=wheels\nnumpy\n# no\n")
    assert release.read_requirements(source) == ["numpy"]
    assert release.read_sources(source) == release.Sources(
        ("https://one.example/cpu#sub=1",), (str(tmp_path / "wheels"),)
    )


def test_another_option_in_release_in_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "release.in"
    source.write_text("--trusted-host one.example\n")
    with pytest.raises(UsageError, match=r"release\.in: '--trusted-host one\.example' is not possible"):
        release.read_sources(source)


def test_a_wheel_that_only_a_folder_has_is_locked_and_built(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _wheel(tmp_path / "wheels", "flowerbed_only_here", "1.0+cpu")
    locked = release.lock(
        ["flowerbed-only-here==1.0+cpu"],
        tmp_path / "release.lock",
        target=HERE,
        program=UV,
        sources=release.Sources(folders=(str(tmp_path / "wheels"),)),
    )
    assert str(tmp_path) not in locked.read_text()
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))  # where pip does not look by itself
    built = release.build(locked, cache=tmp_path / "build", program=UV)
    assert built.packages["flowerbed-only-here"] == "1.0+cpu"
    with tarfile.open(built.archive) as archive:
        assert f"wheels/{name}" in archive.getnames()


def _wheel(folder: Path, package: str, version: str, content: str = "") -> str:
    """Write a wheel with one module."""
    folder.mkdir()
    name = f"{package}-{version}-py3-none-any.whl"
    info = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(f"{package}.py", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{package}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return name


def test_what_cannot_be_resolved_leaves_the_old_lock(tmp_path: Path) -> None:
    out = tmp_path / "release.lock"
    out.write_text("the old one")
    with pytest.raises(WorkFailed, match=r"cannot lock .* iniconfig==0\.0\.0") as raised:
        release.lock(["iniconfig==0.0.0"], out, target=HERE, program=UV)
    assert "\n" not in str(raised.value)
    assert out.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("target", "value"), [({"python": "3"}, "3"), ({"arch": "mips"}, "mips"), ({"glibc": "x"}, "x")]
)
def test_an_impossible_target_is_refused_by_its_value(target: dict[str, str], value: str) -> None:
    with pytest.raises(UsageError, match=f"'{value}'"):
        Target(**target)


def test_an_apps_requirements_are_its_dependencies_without_flower(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["flwr[simulation]>=1.40", "scikit-learn>=1.7", "numpy"]\n'
    )
    assert release.requirements_of(tmp_path) == ["numpy", "scikit-learn>=1.7"]


@pytest.mark.parametrize("line", ["numpy=1", "x @ https://example.org/x.whl"])
def test_what_is_no_requirement_is_named_with_its_file(tmp_path: Path, line: str) -> None:
    file = tmp_path / "release.in"
    file.write_text(f"numpy # arrays\n{line}\n")
    with pytest.raises(UsageError) as raised:
        release.read_requirements(file)
    assert str(file) in str(raised.value)
    assert line in str(raised.value)


def test_the_labs_lock_holds_this_flower_and_what_its_apps_import() -> None:
    text = (INVENTORIES / "lab" / "release.lock").read_text()
    assert f"\nflwr=={release.flower_version()} " in text
    wanted = ", ".join(release.read_requirements(INVENTORIES / "lab" / "release.in"))
    assert f"\n# requirements: {wanted}\n" in text
    assert "://" not in text


def test_a_lock_for_another_python_keeps_the_versions_of_the_first(tmp_path: Path) -> None:
    first = release.lock(["iniconfig==2.0.0"], tmp_path / "release.lock", target=HERE, program=UV)
    second = release.lock(
        ["iniconfig"], tmp_path / "release-3.13.lock", target=Target(python="3.13"), program=UV, like=first
    )
    assert "iniconfig==2.0.0" in second.read_text()
    assert second.read_text().startswith("# target: python 3.13, ")


def test_the_locks_of_existing_machines_hold_the_same_versions_for_every_python() -> None:
    existing = FederationFolder(INVENTORIES / "existing")
    locks = {python: existing.lock_for(python).read_text() for python in ("3.11", "3.12", "3.13")}
    assert [text.split()[3] for text in locks.values()] == [f"{python}," for python in locks]
    pins = [{line.split()[0] for line in text.splitlines() if "==" in line} for text in locks.values()]
    assert pins[0] == pins[1] == pins[2]
    assert existing.lock.read_text() == (INVENTORIES / "lab" / "release.lock").read_text()


def test_a_lock_for_the_wrong_python_is_refused(tmp_path: Path, lock: Path) -> None:
    federation = FederationFolder(tmp_path)
    text = (INVENTORIES / "lab" / "release.lock").read_text()
    federation.lock_for("3.13").write_text(text)
    with pytest.raises(UsageError, match=r"release-3\.13\.lock is for Python 3\.11: remove it to make it again"):
        release.of(federation, python="3.13")


def pins(locked: Path) -> dict[str, str]:
    """The versions in a lock."""
    lines = [line.split()[0] for line in locked.read_text().splitlines() if "==" in line and line[0] != "#"]
    return dict(line.split("==") for line in lines)


def test_a_package_is_added_and_the_others_keep_their_versions(tmp_path: Path) -> None:
    federation = FederationFolder(tmp_path)
    source = federation.lock.with_suffix(".in")
    source.write_text("# what apps need\nsix<1.17\n")
    release.lock(["six<1.17"], federation.lock)
    before = pins(federation.lock)
    assert release.add(federation, ["toolz", "six"]) == ["six", "toolz"]
    assert source.read_text() == "# what apps need\nsix\ntoolz\n"
    after = pins(federation.lock)
    assert after.pop("toolz")
    assert after == before


def test_a_package_that_does_not_exist_changes_nothing(tmp_path: Path) -> None:
    federation = FederationFolder(tmp_path)
    source = federation.lock.with_suffix(".in")
    source.write_text("six\n")
    release.lock(["six"], federation.lock)
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}
    with pytest.raises(WorkFailed, match="no-such-package-as-this"):
        release.add(federation, ["no-such-package-as-this"])
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before


def test_a_changed_release_in_is_noticed(tmp_path: Path, lock: Path) -> None:
    shutil.copy(lock, tmp_path / "release.lock")
    (tmp_path / "release.in").write_text("iniconfig\nnumpy\n")
    with pytest.raises(UsageError, match="remove the lock"):
        release.of(FederationFolder(tmp_path))


# Builds


def _unpacked(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_the_archive_holds_what_its_manifest_lists_with_these_hashes(built: Release, lock: Path) -> None:
    content = _unpacked(built.archive)
    assert next(iter(content)) == "manifest.json"
    manifest = json.loads(content.pop("manifest.json"))
    assert manifest["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    assert content["release.lock"] == lock.read_bytes()
    assert "bytecode.zip" in content
    assert manifest["id"] == built.id


def test_the_same_lock_is_built_once(built: Release, lock: Path, cache: Path) -> None:
    before = built.archive.stat()
    said: list[str] = []
    assert release.build(lock, cache=cache, program=UV, progress=said.append) == built
    assert said == []
    assert built.archive.stat() == before


def test_comments_do_not_change_a_releases_id_but_pins_and_target_do(
    built: Release, older: Release, lock: Path, cache: Path, tmp_path: Path
) -> None:
    commented = tmp_path / "commented.lock"
    commented.write_text("# reviewed\n" + lock.read_text())
    assert release.build(commented, cache=cache, program=UV).id == built.id
    assert older.id != built.id


def test_a_damaged_release_is_made_again(older: Release, cache: Path) -> None:
    os.truncate(older.archive, 1000)
    again = release.build(older.lock, cache=cache, program=UV)
    assert json.loads(_unpacked(again.archive)["manifest.json"])["id"] == older.id


def test_builders_at_the_same_time_make_one_release(built: Release, lock: Path, tmp_path: Path) -> None:
    shutil.copytree(built.archive.parents[2] / "wheels", tmp_path / "wheels")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        releases = pool.starmap(_build, [(lock, tmp_path)] * 2)
    assert [one.id for one in releases] == [built.id, built.id]
    assert [entry.name for entry in (tmp_path / "releases").iterdir()] == [built.id]


def _build(lock: Path, cache: Path) -> Release:
    return release.build(lock, cache=cache, program=UV)


def test_a_wheel_that_does_not_match_its_hash_is_refused_and_leaves_nothing(lock: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged.lock"
    forged.write_text("\n".join(_other_hash(line) for line in lock.read_text().splitlines()))
    with pytest.raises(WorkFailed):
        release.build(forged, cache=tmp_path / "build", program=UV)
    assert list((tmp_path / "build" / "releases").iterdir()) == []


def _other_hash(line: str) -> str:
    head, mark, digest = line.partition("--hash=sha256:")
    return head + mark + ("0" * 64 + digest[64:] if mark else "")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: "", "does not pin uv"),
        (lambda text: "".join(line for line in text.splitlines(True) if "--hash" not in line), "has no hashes"),
    ],
)
def test_a_lock_that_is_none_is_refused(lock: Path, tmp_path: Path, spoil: Callable[[str], str], said: str) -> None:
    bad = tmp_path / "bad.lock"
    bad.write_text(spoil(lock.read_text()))
    with pytest.raises(UsageError, match=said):
        release.build(bad, cache=tmp_path, program=UV)


# Hosts


@dataclass(frozen=True)
class Host:
    """A folder that stands for a host's /opt/flower; its parents are readable by all, as there."""

    root: Path

    def play(self, *options: str, **arguments: Any) -> tuple[bool, str]:
        """Run the module through Ansible; return whether it succeeded, and its output."""
        task = {"flowerbed.federation.release": {"root": str(self.root), **arguments}}
        playbook = self.root.parent / "play.yml"
        playbook.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "tasks": [task]}]))
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), playbook, "-i", "localhost,", *options],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg")},
        )
        return done.returncode == 0, done.stdout + done.stderr

    def call(self, archive: Path | None = None, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run the module as it runs on a host, with what its action plugin gives it."""
        if archive:
            with tarfile.open(archive) as tar:
                manifest = tar.extractfile("manifest.json").read()  # type: ignore[union-attr]
            arguments["archive"] = str(archive)
            arguments.setdefault("id", json.loads(manifest)["id"])
            arguments.setdefault("manifest_sha256", hashlib.sha256(manifest).hexdigest())
        arguments |= {"root": str(self.root), "python": PYTHON, "_ansible_check_mode": check}
        done = subprocess.run(
            [sys.executable, MODULE],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ANSIBLE / "collections")},  # a host gets what it imports sent along
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def call_check(self, ident: str) -> dict[str, Any]:
        """Run release_check as it runs on a host; the program is uv, which knows no Flower."""
        arguments = {"id": ident, "root": str(self.root), "programs": []}
        done = subprocess.run(
            [sys.executable, MODULE.with_name("release_check.py")],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            check=False,
            capture_output=True,
            text=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def active(self) -> str:
        link = self.root / "current"
        return link.readlink().name if link.is_symlink() else ""

    def installed(self) -> set[str]:
        return {entry.name for entry in (self.root / "releases").iterdir() if entry.is_dir()}


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="flowerbed-test-") as folder:
        Path(folder).chmod(0o755)
        yield Host(Path(folder) / "flower")


def test_through_ansible_a_release_is_announced_installed_once_and_then_left_alone(host: Host, built: Release) -> None:
    archive = str(built.archive)
    good, announced = host.play("--check", "--diff", archive=archive)
    assert good, announced
    assert f"+active: {built.id}" in announced
    assert "changed=1" in announced
    assert not host.root.exists()

    good, installed = host.play(archive=archive)
    assert good, installed
    assert "changed=1" in installed
    program = subprocess.run([host.root / "current/bin/uv", "--version"], check=True, capture_output=True, text=True)
    assert f"uv {built.version}" in program.stdout

    good, again = host.play("--diff", archive=archive)
    assert good, again
    assert "changed=0" in again


def test_an_archive_that_is_none_is_refused_on_the_operators_machine(host: Host, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("no archive")
    good, said = host.play(archive=str(tmp_path / "a.tar"))
    assert not good
    assert f"archive {tmp_path / 'a.tar'} is no release" in said


def test_all_users_can_read_a_release_and_none_but_its_owner_can_write(host: Host, built: Release) -> None:
    assert host.call(built.archive)["changed"]
    for file in [host.root, *host.root.rglob("*")]:
        if not file.is_symlink():
            mode = file.stat().st_mode
            assert mode & 0o022 == 0, file
            assert mode & 0o004, file


def test_the_byte_code_comes_along_and_the_wheels_go(host: Host, built: Release) -> None:
    host.call(built.archive)
    site = host.root / "current" / "lib" / f"python{HERE.python}" / "site-packages"
    compiled = site / "iniconfig" / "__pycache__" / f"__init__.cpython-{HERE.python.replace('.', '')}.pyc"
    # Flag 1 without 2: checked by hash, and never against the source.
    assert compiled.read_bytes()[4:8] == b"\x01\x00\x00\x00"
    assert host.installed() == {built.id}
    assert not list(host.root.rglob("*.whl"))


def test_check_mode_changes_nothing(host: Host, built: Release) -> None:
    assert host.call(built.archive, check=True)["changed"]
    assert not host.root.exists()


def test_the_release_before_stays_and_the_way_back_needs_no_archive(host: Host, built: Release, older: Release) -> None:
    host.call(older.archive)
    forward = host.call(built.archive)
    assert (forward["previous"], forward["id"]) == (older.id, built.id)
    back = host.call(id=older.id)
    assert (back["changed"], back["previous"], host.active()) == (True, built.id, older.id)
    assert host.installed() == {older.id, built.id}


def test_a_release_is_installed_beside_the_active_one(host: Host, built: Release, older: Release) -> None:
    host.call(older.archive)
    beside = host.call(built.archive, activate=False)
    assert (beside["changed"], beside["id"], beside["previous"], beside["removed"]) == (True, built.id, older.id, [])
    assert (host.active(), host.installed()) == (older.id, {older.id, built.id})
    assert not host.call(built.archive, activate=False)["changed"]


def test_a_check_finds_a_file_that_is_not_as_its_package_has_it(host: Host, older: Release, built: Release) -> None:
    host.call(older.archive)
    host.call(built.archive, activate=False)
    good = host.call_check(built.id)
    assert good["files"] > 2
    (file,) = (host.root / "releases" / built.id).glob("lib/python3*/site-packages/iniconfig/__init__.py")
    file.write_text(file.read_text() + "\n")
    bad = host.call_check(built.id)
    assert bad["failed"]
    assert "iniconfig/__init__.py is not as its package has it" in bad["msg"]
    assert "is not installed" in host.call_check("1.0-none")["msg"]


def test_a_check_finds_what_cannot_be_imported_though_its_files_are_right(
    host: Host, older: Release, tmp_path: Path
) -> None:
    folder = tmp_path / "wheels"
    _wheel(folder, "broken", "1.0", "import no_such_module")
    sources = release.Sources(folders=(str(folder),))
    locked = release.lock(["broken==1.0"], tmp_path / "broken.lock", target=HERE, program=UV, sources=sources)
    broken = release.build(locked, cache=tmp_path / "cache", program=UV, sources=sources)
    host.call(older.archive)
    host.call(broken.archive, activate=False)
    assert "No module named 'no_such_module'" in host.call_check(broken.id)["msg"]


def test_a_release_that_was_never_installed_cannot_be_gone_back_to(host: Host, built: Release) -> None:
    host.call(built.archive)
    answer = host.call(id="1.2.3-0000000000")
    assert answer["failed"]
    assert "1.2.3-0000000000 is not installed" in answer["msg"]
    assert host.active() == built.id


def test_more_than_the_kept_releases_go_and_never_the_previous_one(host: Host, built: Release, older: Release) -> None:
    host.call(older.archive)
    ancient = host.root / "releases" / "0.1.0-ancient"
    shutil.copytree(host.root / "releases" / older.id, ancient, symlinks=True)
    marker = json.loads((ancient / "release.json").read_text()) | {"id": ancient.name}
    (ancient / "release.json").write_text(json.dumps(marker))
    answer = host.call(built.archive, keep=1)
    assert answer["removed"] == [ancient.name]
    assert host.installed() == {built.id, older.id}


def test_what_an_interrupted_installation_left_is_made_anew(host: Host, built: Release) -> None:
    host.call(built.archive)
    (host.root / "releases" / built.id / "release.json").unlink()
    (host.root / "releases" / ".0.0.1-other.partial").mkdir()
    assert host.call(built.archive)["changed"]
    assert host.installed() == {built.id}
    assert not host.call(built.archive)["changed"]


def _repack(built: Release, out: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> Path:
    """Write the archive again after a change of its manifest or content."""
    content = _unpacked(built.archive)
    manifest = json.loads(content.pop("manifest.json"))
    change(manifest, content)
    with tarfile.open(out, "w") as tar:
        for name, data in {"manifest.json": json.dumps(manifest).encode(), **content}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out


def _damage(_: dict[str, Any], content: dict[str, bytes]) -> None:
    name = next(name for name in content if name.startswith("wheels/iniconfig"))
    wheel = io.BytesIO(content[name])
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("iniconfig/surprise.py", "")
    content[name] = wheel.getvalue()


def _damage_and_sign(manifest: dict[str, Any], content: dict[str, bytes]) -> None:
    _damage(manifest, content)
    manifest["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}


def _stowaway(_: dict[str, Any], content: dict[str, bytes]) -> None:
    content["../../stowaway"] = b"x"


def _missing(_: dict[str, Any], content: dict[str, bytes]) -> None:
    del content["bytecode.zip"]


def _silent(manifest: dict[str, Any], _: dict[str, bytes]) -> None:
    manifest["check"]["answer"] = "uv 0.0.0"


def _other_python(manifest: dict[str, Any], _: dict[str, bytes]) -> None:
    manifest["python"] = "3.99"


def _other_machine(manifest: dict[str, Any], _: dict[str, bytes]) -> None:
    manifest["arch"] = "mips"


def _newer_library(manifest: dict[str, Any], _: dict[str, bytes]) -> None:
    manifest["glibc"] = "2.99"


def _too_large(manifest: dict[str, Any], _: dict[str, bytes]) -> None:
    manifest["installed_bytes"] = 2**60


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_damage, "does not match its hash"),
        (_damage_and_sign, "Hash mismatch for `iniconfig"),
        (_stowaway, "stowaway, which its manifest does not list"),
        (_missing, "lacks bytecode.zip"),
        (_silent, "instead of 'uv 0.0.0'"),
        (_other_python, "is for 3.99"),
        (_other_machine, "is for mips"),
        (_newer_library, "needs 2.99"),
        (_too_large, "MiB free"),
    ],
)
def test_what_does_not_serve_is_refused_and_the_host_stays_as_it_was(
    host: Host,
    built: Release,
    older: Release,
    tmp_path: Path,
    change: Callable[[dict[str, Any], dict[str, bytes]], None],
    said: str,
) -> None:
    host.call(older.archive)
    answer = host.call(_repack(built, tmp_path / "changed.tar", change))
    assert answer.get("failed"), answer
    assert said in answer["msg"]
    assert "\n" not in answer["msg"]
    assert (host.active(), host.installed()) == (older.id, {older.id})


def test_an_archive_other_than_the_operators_is_refused(host: Host, built: Release, older: Release) -> None:
    host.call(older.archive)
    answer = host.call(built.archive, manifest_sha256="0" * 64)
    assert "manifest is not the operator's" in answer["msg"]
    assert host.active() == older.id


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"keep": 0, "id": "1.0-a"}, "keep: "), ({"id": "../../etc"}, "id: '../../etc'"), ({}, "one of")],
)
def test_impossible_arguments_are_refused_by_name(host: Host, arguments: dict[str, Any], said: str) -> None:
    answer = host.call(**arguments)
    assert answer["failed"]
    assert said in answer["msg"]
    assert not host.root.exists()
