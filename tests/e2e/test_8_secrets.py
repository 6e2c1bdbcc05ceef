"""No secret is anywhere but where it must be: after many runs and deploys every known value is looked for."""

import base64
import os
import secrets
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from flowerbed import custody, inventory, lab, ssh
from flowerbed.paths import ANSIBLE
from tests import search
from tests.e2e.conftest import SECRETS, SITES, Standing

# The kernel's own folders; the journal is asked, and not read as files.
SKIP = ["/proc", "/sys", "/var/log/journal", "/run/log/journal"]
PLANTED = "what was planted"
HOSTS = ["coordinator", *SITES]


@dataclass
class Known:
    """The values that must stay where they are: what, at which host and path."""

    standing: Standing

    @cached_property
    def since(self) -> float:
        """When the oldest secret of the federation was made."""
        return min(path.stat().st_mtime for path in self.standing.federation.secrets.rglob("*") if path.is_file()) - 1

    @cached_property
    def operators(self) -> dict[str, bytes]:
        """What only the operator's machine holds."""
        federation = self.standing.federation
        passphrase = federation.ca_passphrase_file.read_text().strip().encode()
        encrypted = (federation.secrets / "ca" / "ca.key").read_bytes()
        return {
            "the CA's passphrase": passphrase,
            "the CA's key": private_part(encrypted, passphrase),
            "the CA's key, encrypted": b"".join(encrypted.splitlines()[2:4]),
            "the key that opens backups": private_part(federation.backup_key.read_bytes(), passphrase),
            "the operator's SSH key": private_part(federation.ssh_key.read_bytes()),
        }

    @cached_property
    def hosts(self) -> dict[str, bytes]:
        """What was made on the hosts, or given to them: every file that root alone may read, as host:path."""
        found = {}
        for name in HOSTS:
            list_ = "find /etc/flower -type f ! -perm /077 -exec sh -c 'echo $1 $(base64 -w0 $1)' _ {} ';'"
            for line in self.standing.host(name).check_output(list_).splitlines():
                path, content = line.split()
                found[f"{name}:{path}"] = value_of(base64.b64decode(content))
        return found

    def on_host(self, name: str, values: dict[str, bytes]) -> list[search.Found]:
        """Where on a host they are."""
        hosts = inventory.read(self.standing.federation)
        shell = ssh.Shell(self.standing.federation, hosts.sites.get(name, hosts.coordinator))
        return search.on(shell.command, values, roots=["/"], skip=SKIP, since=self.since)

    def here(self, values: dict[str, bytes], *more: Path) -> list[search.Found]:
        """Where on the operator's machine they are, but for the folder that is made for them and the hosts' disks."""
        temporary = [path for path in Path(tempfile.gettempdir()).iterdir() if not path.name.startswith("pytest-")]
        roots = [self.standing.federation.path, self.standing.work, Path.home(), *temporary, *more]
        skip = [*SKIP, str(lab.system.DISKS), str(self.standing.federation.secrets)]
        return search.on(lambda words: words, values, roots=[str(root) for root in roots], skip=skip, since=self.since)


def private_part(key: bytes, passphrase: bytes | None = None) -> bytes:
    """The number that makes a key a private one, whatever the form in which the key is written."""
    ssh_form = key.startswith(b"-----BEGIN OPENSSH")
    loaded = load_ssh_private_key(key, passphrase) if ssh_form else load_pem_private_key(key, passphrase)
    if isinstance(loaded, ec.EllipticCurvePrivateKey):
        return loaded.private_numbers().private_value.to_bytes(loaded.key_size // 8, "big")
    assert isinstance(loaded, ed25519.Ed25519PrivateKey)
    return loaded.private_bytes_raw()


def value_of(content: bytes) -> bytes:
    """What is secret in a file."""
    return private_part(content) if b"PRIVATE KEY-----" in content else content


@pytest.fixture(scope="module")
def known(standing: Standing) -> Known:
    """The federation's secrets."""
    return Known(standing)


@pytest.fixture(scope="module")
def found(standing: Standing, known: Known, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[search.Found]]:
    """What was found on each host and, as "here", on this machine; one value was planted in several ways."""
    planted = secrets.token_bytes(32)
    values = {**known.operators, **known.hosts, PLANTED: planted}
    _, in_hex, in_base64, *_, later_in_base64 = [form.decode(errors="replace") for form in search.forms(planted)]
    host = standing.host("hospital-a")
    host.check_output("mkdir -p /srv/planted && echo %s > /srv/planted/file", in_hex)
    host.check_output("logger %s", f"a line with {in_base64} in it")
    process = host.check_output("env A=%s sleep 600 >/dev/null 2>&1 & echo $!", later_in_base64)
    folder = tmp_path_factory.mktemp("planted")
    (folder / "binary").write_bytes(b"before" + planted + b"after")
    (folder / "lines").write_bytes(base64.encodebytes(b"x" + bytes(40) + planted * 2))
    # While it is made, a backup has what it encrypts beside itself, in a folder of its own.
    coordinator = standing.host("coordinator")
    coordinator.check_output("systemctl stop flower-backup.timer")
    coordinator.check_output("while [ $(systemctl is-active flower-backup) = activating ]; do sleep 0.2; done")
    try:
        with ThreadPoolExecutor() as pool:
            here = pool.submit(known.here, values, folder)
            on_hosts = pool.map(lambda name: known.on_host(name, values), HOSTS)
            return {**dict(zip(HOSTS, on_hosts, strict=True)), "here": here.result()}
    finally:
        coordinator.check_output("systemctl start flower-backup.timer")
        host.check_output(f"kill {process}; rm -r /srv/planted")


def test_every_kind_of_secret_is_looked_for(standing: Standing, known: Known) -> None:
    kinds = {Path(name).name for name in known.hosts}
    assert kinds >= {"node_key", "superexec.secret", "runtime.key", "server.key", *SECRETS.values()}
    given = (standing.federation.secrets / SECRETS["hospital-a"]).read_bytes()
    assert known.hosts[f"hospital-a:/etc/flower/supernode/secrets/{SECRETS['hospital-a']}"] == given


def test_the_search_finds_what_was_planted(found: dict[str, list[search.Found]]) -> None:
    where = {one["where"] for one in found["hospital-a"] if one["value"] == PLANTED}
    assert where == {"/srv/planted/file", "journal", "environ of a process"}
    here = {Path(one["where"]).name for one in found["here"] if one["value"] == PLANTED}
    assert here - {"environ of a process"} == {"binary", "lines"}  # the lab's hosts are processes of this machine


def test_on_a_host_each_secret_is_in_its_own_file_alone(known: Known, found: dict[str, list[search.Found]]) -> None:
    holders: dict[str, set[str]] = {}
    for name in HOSTS:
        for one in found[name]:
            # systemd hands a service what it may read in a folder of the service's own.
            handed = one["where"].startswith(("/run/credentials/flower-", "/run/flower-gateway/"))
            place = "credentials" if handed else one["where"]
            holders.setdefault(one["value"], set()).add(f"{name}:{place}")
            assert one["mode"] & 0o077 == 0 or one["value"] == PLANTED, one
    holders.pop(PLANTED)
    assert {value: paths - {f"{value.split(':')[0]}:credentials"} for value, paths in holders.items()} == {
        value: {value} for value in known.hosts
    }


def test_on_the_operators_machine_no_secret_leaves_its_folder(
    standing: Standing, found: dict[str, list[search.Found]]
) -> None:
    """Neither Terraform's state nor the inventory, a log, a run's folder, a cache or a process has one."""
    assert [one for one in found["here"] if one["value"] != PLANTED] == []
    assert custody.open_paths(standing.federation) == []


def test_no_secret_is_in_what_a_check_with_differences_prints(standing: Standing, known: Known) -> None:
    """Not even while one of them changes, and with everything that Ansible can be made to say."""
    shared, host = "/opt/flower/libexec/flower-expiry", standing.host("hospital-a")
    file = standing.federation.secrets / SECRETS["hospital-a"]
    before = file.read_text()
    playbook = [str(Path(sys.executable).with_name("ansible-playbook")), "-vvvv", "--check", "--diff"]
    playbook += ["--inventory", str(standing.federation.hosts_file), str(ANSIBLE / "playbooks" / "site.yml")]
    host.check_output(f"cp -a {shared} /var/tmp/kept && echo '# by hand' >> {shared}")
    try:
        file.write_text(secrets.token_urlsafe(24))
        new = file.read_bytes()
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg")}
        done = subprocess.run(playbook, env=environment, capture_output=True, check=False)
    finally:
        file.write_text(before)
        host.check_output(f"mv /var/tmp/kept {shared}")
    assert done.returncode == 0, done.stdout.decode()[-2000:]
    assert b"changed=2" in done.stdout
    assert b"-# by hand" in done.stdout
    for name, value in {**known.operators, **known.hosts, "the new one": new}.items():
        assert not [form for form in search.forms(value) if form in done.stdout + done.stderr], name
