"""Makes and removes the lab hosts of a molecule scenario: `lab_hosts.py create`, `lab_hosts.py destroy`."""

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from flowerbed import federation, lab, release

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
ROLE = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]).name
FEDERATION = f"mol-{ROLE}-{os.environ['MOLECULE_SCENARIO_NAME']}"


def platforms() -> list[dict[str, Any]]:
    """The scenario's hosts that are lab hosts."""
    scenario = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())
    return [platform for platform in scenario["platforms"] if "address" in platform]


def create() -> None:
    """Make the hosts and leave in the scenario's folder what opens them: keys, known hosts, SSH configuration."""
    FOLDER.chmod(0o700)
    (FOLDER / "ca_passphrase").write_text(secrets.token_urlsafe(24))
    hosts = platforms()
    key = FOLDER / "id_ed25519"
    if hosts:
        release_link = FOLDER / "release.tar"
        release_link.unlink(missing_ok=True)
        release_link.symlink_to(release.of(federation.find("lab")).archive)
        key.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    known, config, instances = [], [], []
    for host in hosts:
        name, address = host["name"], host["address"]
        network = ".".join(address.split(".")[:2]) + ".0.0/16"
        public = key.with_suffix(".pub").read_text().strip()
        lab.create(lab.HostSpec(FEDERATION, name, address, network, ssh_key=public, keys_dir=str(FOLDER)))
        known.append(f"{address} {(FOLDER / f'{name}.pub').read_text().strip()}\n")
        config.append(
            f"Host {name}\n  HostName {address}\n  User root\n  IdentityFile {key}\n  IdentitiesOnly yes\n"
            f"  StrictHostKeyChecking yes\n  UserKnownHostsFile {FOLDER}/known_hosts\n"
            "  ControlMaster auto\n  ControlPath ~/.ansible/cp/%C\n  ControlPersist 60s\n"
        )
        instances.append({"instance": name, "address": address, "user": "root", "port": 22, "identity_file": str(key)})
    (FOLDER / "known_hosts").write_text("".join(known))
    (FOLDER / "ssh_config").write_text("".join(config))
    Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).write_text(yaml.safe_dump(instances))


def destroy() -> None:
    """Remove the hosts; none is no error."""
    if platforms():
        lab.destroy_all(FEDERATION)


if __name__ == "__main__":
    {"create": create, "destroy": destroy}[sys.argv[1]]()
