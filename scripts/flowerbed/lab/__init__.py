"""The embedded platform: real hosts, with systemd, sshd, firewall and network, as containers here.

Terraform calls it as `python -m flowerbed.lab`; tests and the driver call these functions. Only Python's
standard library is needed, so that Terraform can do without the driver's environment.
"""

from flowerbed.lab.host import (
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
from flowerbed.lab.spec import HostSpec

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
