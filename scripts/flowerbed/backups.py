"""Backups of the coordinator's state: made there, brought home, and opened with the key that the operator alone has."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from packaging.version import Version

from flowerbed import control, journal, ssh
from flowerbed.errors import EnvironmentLacks, UsageError, WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.inventory import replace_file

PASSPHRASE_VARIABLE = "FLOWERBED_CA_PASSPHRASE"
LAST = "/var/lib/flower/backups/last.json"
"""On the coordinator: what came of the last backup, with `finished_at`, `succeeded_at`, `ok` and `error`."""
DATABASE = "/var/lib/flower/superlink/superlink.db"
_SETTINGS = "/etc/flower/backup/settings.json"
_DATABASE_IN_ARCHIVE = f"files{DATABASE}"


@dataclass(frozen=True)
class Backup:
    """A backup, as everybody can read it."""

    file: Path
    id: str
    federation: str
    made_at: datetime
    release: str
    bytes: int
    recipient: str
    """The sha256 of the certificate to which it is encrypted."""
    place: str = "here"
    """`here`, or the coordinator's name."""

    def to_json(self) -> dict[str, Any]:
        """For the command line's --json."""
        return {**asdict(self), "file": str(self.file), "made_at": int(self.made_at.timestamp())}


@dataclass(frozen=True)
class Opened:
    """A backup that was decrypted and checked, while `opened` lasts."""

    backup: Backup
    archive: Path
    """A compressed tar, as the module coordinator_state takes it."""
    runs: int
    runs_under_way: list[str]
    """The runs that had not ended when the backup was made."""
    files: list[str]


# Made and brought home -------------------------------------------------------------------------------------


def make(federation: FederationFolder, progress: Callable[[str], None] = lambda what: None) -> tuple[Backup, bool]:
    """Make a backup now, bring it into the federation's `backups/` and check it there.

    Returns it, and whether it was opened and checked as a restore would, for which the passphrase must be at hand.
    Raises WorkFailed when the coordinator makes none, or when it arrives otherwise than it was sent.
    """
    shell = control.coordinator(federation)
    progress("the coordinator makes it")
    last = _make_there(federation, shell)
    progress("it comes home")
    backup = read(_fetch(federation, shell, last))
    checked = _passphrase(federation) is not None
    if checked:
        progress("it is opened and checked")
        with opened(federation, backup.file):
            pass
    fields = {"federation": federation.name, "by": journal.operator(), "detail": str(last["sha256"])}
    shell.record("backup.made", f"{backup.file.name} was made and brought home", fields)
    return backup, checked


def listing(federation: FederationFolder) -> tuple[list[Backup], str]:
    """The backups here and on the coordinator, the newest first; and why the coordinator's are not among them."""
    here = [_outline(file) for file in sorted(federation.backups.glob("*.backup"))]
    there: list[Backup] = []
    reason = ""
    shell = control.coordinator(federation)
    try:
        answer = json.loads(shell.run(["python3", "-c", _LIST, _SETTINGS]))
        there = [_described(Path(one["file"]), one, shell.host.name) for one in answer]
    except WorkFailed as error:
        reason = str(error)
    found = [one for one in here if one is not None] + there
    return sorted(found, key=lambda one: one.made_at, reverse=True), reason


def newest(federation: FederationFolder) -> Path:
    """The newest backup that was brought home; UsageError where there is none."""
    files = [one for file in federation.backups.glob("*.backup") if (one := _outline(file)) is not None]
    if not files:
        raise UsageError(f"{federation.backups} holds no backup: name one with --from, as it was copied elsewhere")
    return max(files, key=lambda one: one.made_at).file


def forgotten(federation: FederationFolder, shell: ssh.Shell) -> bool:
    """Whether the coordinator is empty although backups of it are here: a new machine that nobody restored."""
    if not any(federation.backups.glob("*.backup")):
        return False
    try:
        return shell.run(["sh", "-c", f"test -e {DATABASE} || echo empty"]).strip() == "empty"
    except WorkFailed:  # one that does not answer is for the playbook to judge
        return False


def refuse_older_flower(backup: Backup, flower: str) -> None:
    """Raise UsageError where the coordinator would get an older Flower than wrote the backup."""
    made_with = backup.release.partition("-")[0]
    if made_with and Version(made_with) > Version(flower):
        raise UsageError(
            f"{backup.file} was made with Flower {made_with}, whose database Flower {flower} may not read: "
            f"restore an older one, or let the federation's release have {made_with} again"
        )


def _make_there(federation: FederationFolder, shell: ssh.Shell) -> dict[str, Any]:
    script = f"systemctl start flower-backup.service; code=$?; cat {LAST} || echo '{{}}'; exit $((code == 5 ? 5 : 0))"
    try:
        last: dict[str, Any] = json.loads(shell.run(["sh", "-c", script]))
    except json.JSONDecodeError:
        raise WorkFailed(f"{LAST} on {shell.host.name} cannot be read: remove it and try again") from None
    except WorkFailed as error:
        if "not found" not in str(error):
            raise
        raise WorkFailed(
            f"{shell.host.name} makes no backups: `flowerbed up {federation.name}` prepares it, unless the group "
            "backup has no hosts"
        ) from None
    if not last.get("ok"):
        raise WorkFailed(
            f"{shell.host.name} made no backup: {last.get('error', 'journalctl -u flower-backup says why')}"
        )
    return last


def _fetch(federation: FederationFolder, shell: ssh.Shell, last: dict[str, Any]) -> Path:
    federation.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(federation.backups / ".gitignore", "*\n")
    file = federation.backups / Path(last["file"]).name
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with tempfile.TemporaryFile() as said, unfinished.open("xb") as stream:
            unfinished.chmod(0o600)
            with shell.pipe(["cat", last["file"]], said) as process:
                assert process.stdin is not None and process.stdout is not None  # noqa: S101 - pipes were asked for
                process.stdin.close()
                digest = hashlib.sha256()
                while block := process.stdout.read(1 << 20):
                    digest.update(block)
                    stream.write(block)
            said.seek(0)
            reason = " ".join(said.read().decode(errors="replace").split())
        if process.returncode or digest.hexdigest() != last["sha256"]:
            raise WorkFailed(f"{last['file']} did not come home whole ({reason or 'its hash differs'}): try again")
        unfinished.replace(file)
    except OSError as error:
        raise WorkFailed(f"{file} cannot be written ({error.strerror}): make room") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return file


# Read and opened -------------------------------------------------------------------------------------------


def read(file: Path) -> Backup:
    """Read what everybody can read of a backup, and see that it is whole; UsageError where it is not."""
    try:
        with tarfile.open(file, "r:") as tar:
            manifest = _manifest(tar)
            payload = tar.extractfile("state.cms")
            assert payload is not None  # noqa: S101 - KeyError would have said so
            digest = _sha256(payload)
        backup = _described(file, {**manifest, "bytes": file.stat().st_size}, "here")
    except FileNotFoundError:
        raise UsageError(f"{file} does not exist: `flowerbed backup list` names the backups") from None
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError, AssertionError):
        raise _damaged(file) from None
    if digest != manifest.get("sha256"):
        raise _damaged(file)
    return backup


@contextmanager
def opened(federation: FederationFolder, file: Path) -> Iterator[Opened]:
    """Decrypt a backup with the operator's key, check all of it, and keep it open while the context lasts.

    Raises UsageError for a file that is damaged or another federation's, and for a wrong passphrase; EnvironmentLacks
    where the passphrase, the key or openssl is missing.
    """
    backup = read(file)
    key, certificate = federation.backup_key, federation.backup_key.with_suffix(".crt")
    for needed in (key, certificate):
        if not needed.exists():
            raise EnvironmentLacks(f"{needed} is missing, and nothing else opens {file.name}: bring it back first")
    if backup.recipient != fingerprint(certificate):
        whose = f"a backup of {backup.federation}" if backup.federation != federation.name else "of another key"
        raise UsageError(f"{file} is {whose}, which {key} does not open: name a backup of {federation.name}")
    passphrase = _passphrase(federation)
    if passphrase is None:
        raise EnvironmentLacks(
            f"the CA's passphrase is not set: put it into {PASSPHRASE_VARIABLE} or into {federation.ca_passphrase_file}"
        )
    _refuse_wrong_passphrase(federation, passphrase)
    federation.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=federation.state, prefix="opened-") as folder:
        yield _open(backup, key, passphrase, Path(folder))


def fingerprint(certificate: Path) -> str:
    """The certificate's sha256, as backups name their recipient; UsageError where it is none."""
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(hashes.SHA256()).hex()
    except ValueError:
        raise UsageError(f"{certificate} holds no certificate: bring it back from your own backup") from None


def _open(backup: Backup, key: Path, passphrase: str, folder: Path) -> Opened:
    archive, encrypted = folder / "state.tar.gz", folder / "state.cms"
    with tarfile.open(backup.file, "r:") as tar:
        member = tar.getmember("state.cms")
        member.mode = 0o600
        tar.extract(member, folder, filter="data")
    command = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(encrypted), "-out", str(archive)]
    command += ["-inkey", str(key), "-recip", str(key.with_suffix(".crt")), "-passin", "env:FLOWERBED_BACKUP_KEY"]
    try:
        done = subprocess.run(
            command, env={**os.environ, "FLOWERBED_BACKUP_KEY": passphrase}, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise EnvironmentLacks("openssl is not installed: apt-get install openssl") from None
    if done.returncode:
        raise _damaged(backup.file)
    encrypted.unlink()
    try:
        manifest = _check(archive, folder)
    except (tarfile.TarError, OSError, EOFError, ValueError, KeyError, sqlite3.Error):
        raise _damaged(backup.file) from None
    if manifest["id"] != backup.id:
        raise _damaged(backup.file)
    runs_under_way = [str(run) for run in manifest["runs_under_way"]]
    return Opened(backup, archive, int(manifest["runs"]), runs_under_way, sorted(manifest["files"]))


def _check(archive: Path, folder: Path) -> dict[str, Any]:
    """The manifest inside, after every file was compared with it and the database was found sound."""
    found = {}
    with tarfile.open(archive, "r:gz") as tar:
        manifest = _manifest(tar)
        for member in tar:
            content = tar.extractfile(member)
            if content is None or member.name == "manifest.json":
                continue
            if member.name == _DATABASE_IN_ARCHIVE:
                database = folder / "superlink.db"
                with database.open("wb") as copy_of_it:
                    shutil.copyfileobj(content, copy_of_it)
                content.seek(0)
            found[member.name.removeprefix("files")] = _sha256(content)
    if found != {name: entry["sha256"] for name, entry in manifest["files"].items()}:
        raise ValueError
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as copy:
        if copy.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            raise ValueError
    database.unlink()
    return manifest


def _refuse_wrong_passphrase(federation: FederationFolder, passphrase: str) -> None:
    try:
        serialization.load_pem_private_key(federation.backup_key.read_bytes(), passphrase.encode())
    except (ValueError, TypeError):
        raise UsageError(
            f"the passphrase does not open {federation.backup_key}: correct {PASSPHRASE_VARIABLE}, or "
            f"{federation.ca_passphrase_file}"
        ) from None


def _passphrase(federation: FederationFolder) -> str | None:
    """The CA's passphrase, which opens backups too; None where it is not at hand."""
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given:
        return given
    file = federation.ca_passphrase_file
    return file.read_text().strip() if file.exists() else None


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _outline(file: Path) -> Backup | None:
    """What a backup says of itself, unchecked; None for what is none."""
    try:
        with tarfile.open(file, "r:") as tar:
            return _described(file, {**_manifest(tar), "bytes": file.stat().st_size}, "here")
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError):
        return None


def _manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    first = tar.next()
    content = tar.extractfile(first) if first is not None and first.name == "manifest.json" else None
    if content is None:
        raise ValueError
    manifest: dict[str, Any] = json.loads(content.read())
    return manifest


def _described(file: Path, manifest: dict[str, Any], place: str) -> Backup:
    return Backup(
        file=file,
        id=str(manifest["id"]),
        federation=str(manifest["federation"]),
        made_at=datetime.fromtimestamp(int(manifest["made_at"]), UTC),
        release=str(manifest["release"]),
        bytes=int(manifest["bytes"]),
        recipient=str(manifest["recipient"]),
        place=place,
    )


def _damaged(file: Path) -> UsageError:
    return UsageError(f"{file} is damaged: take another one, `flowerbed backup list` names them")


# Runs on the coordinator with its own Python; prints one JSON document.
_LIST = r"""
import json, pathlib, sys, tarfile
settings = pathlib.Path(sys.argv[1])
found = []
folder = pathlib.Path(json.loads(settings.read_text())["path"]) if settings.exists() else None
for file in sorted(folder.glob("*.backup")) if folder else []:
    try:
        with tarfile.open(file, "r:") as tar:
            manifest = json.loads(tar.extractfile(tar.next()).read())
        found.append({**manifest, "file": str(file), "bytes": file.stat().st_size})
    except (tarfile.TarError, ValueError, OSError):
        pass
print(json.dumps(found))
"""
