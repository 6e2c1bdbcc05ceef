"""SSH host keys of new instances, learned through the account and pinned, so that host key checking stays on.

cloud-init writes the public host keys to the instance's console at its first boot, and the account hands that out to
whoever may call ec2:GetConsoleOutput: the key comes by the account's own TLS, never by asking the host itself.
"""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from flowerbed.aws import client
from flowerbed.errors import WorkFailed
from flowerbed.inventory import Instance, replace_file

_BLOCK = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
_KEY = re.compile(r"(ssh-ed25519 [A-Za-z0-9+/=]{60,})")
_PAUSE = 5.0  # seconds between two looks; the console of a new instance appears after one to three minutes


def learn(
    instances: Mapping[str, Instance],
    pinned: Path,
    patience: float,
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, str]:
    """Return the host key of each instance; one that was learned once is not asked for again.

    Args:
        instances: by the host's name.
        pinned: folder with one file per instance that was learned, named after its id.
        patience: how long, in seconds, a new instance may take until its console shows the key.
        progress: hears whose key is awaited.

    Raises:
        WorkFailed: an instance showed no key in time; the keys of the others are pinned, and the same call goes on.
    """
    deadline = time.monotonic() + patience
    keys: dict[str, str] = {}
    while True:
        for name, instance in instances.items():
            if name not in keys and (key := _pinned(instance, pinned) or _ask(instance, pinned)):
                keys[name] = key
        missing = [name for name in instances if name not in keys]
        if not missing:
            return keys
        if time.monotonic() >= deadline:
            raise WorkFailed(_unreachable({name: instances[name] for name in missing}, patience))
        progress(f"waiting for the SSH host key of {', '.join(missing)}")
        time.sleep(min(_PAUSE, max(0.0, deadline - time.monotonic())))


def _pinned(instance: Instance, folder: Path) -> str:
    file = folder / f"{instance.id}.pub"
    return file.read_text().strip() if file.exists() else ""


def _ask(instance: Instance, folder: Path) -> str:
    api = client.ec2(instance.region)
    with client.telling(instance.region):
        answer = api.get_console_output(InstanceId=instance.id)
    key = _read(answer.get("Output") or "")
    if key:
        replace_file(folder / f"{instance.id}.pub", f"{key}\n")
    return key


def _read(console: str) -> str:
    """The ed25519 key of the first boot; what a later boot or a program printed after it does not count."""
    block = _BLOCK.search(console)
    key = _KEY.search(block[1]) if block else None
    return key[1] if key else ""


def _unreachable(missing: Mapping[str, Instance], patience: float) -> str:
    who = ", ".join(f"{name} ({instance.id} in {instance.region})" for name, instance in missing.items())
    return (
        f"the machines exist, but {who} cannot be reached: no SSH host key in the instance's console output after "
        f"{patience:.0f} s; see its system log in the AWS console, and call `flowerbed up` again when it has booted"
    )
