"""A connection that leads nowhere: whoever describes a host must not touch it."""

from __future__ import annotations

from typing import NoReturn

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: nowhere
short_description: Refuse everything
description: The dossier is made from what the roles would do; a task that wants a host is one too many.
author: The Flowerbed authors (@flowerbed)
options: {}
"""


class Connection(ConnectionBase):
    """Refuses everything."""

    transport = "nowhere"

    def _connect(self) -> NoReturn:
        raise AnsibleConnectionFailure("this task wants the host itself, which a description must not touch")

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> NoReturn:
        """Refuse a command."""
        self._connect()

    def put_file(self, in_path: str, out_path: str) -> NoReturn:
        """Refuse a file."""
        self._connect()

    def fetch_file(self, in_path: str, out_path: str) -> NoReturn:
        """Refuse a file."""
        self._connect()

    def close(self) -> None:
        """Nothing is open."""
