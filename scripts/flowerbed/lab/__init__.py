"""The embedded platform: real hosts (systemd, sshd, firewall, network of their own) as containers on this machine.

Terraform calls it as `python -m flowerbed.lab`; tests and the driver call these functions.
"""

from flowerbed.lab.host import (
    HostSpec,
    HostState,
    create,
    cut,
    destroy,
    destroy_all,
    hosts,
    kill,
    restore,
    start,
    stop,
)

__all__ = [
    "HostSpec",
    "HostState",
    "create",
    "cut",
    "destroy",
    "destroy_all",
    "hosts",
    "kill",
    "restore",
    "start",
    "stop",
]
