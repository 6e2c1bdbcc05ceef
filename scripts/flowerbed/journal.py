"""Entries of the audit trail, as the operator's machine writes them into a host's journal."""

import getpass
import json
import socket
from collections.abc import Mapping

from flowerbed.paths import ANSIBLE

IDENTIFIER = "flowerbed"
"""What `journalctl --identifier` finds the entries by."""
# The same lines that the hosts' own programs use, so that there is one form of entries.
_WRITER = ANSIBLE / "plugins" / "module_utils" / "audit.py"
_CALL = "\nimport json, sys\nrecord(*json.loads(sys.argv[1]), **json.loads(sys.argv[2]))\n"


def write_command(event: str, message: str, fields: Mapping[str, str]) -> list[str]:
    """The command that appends an entry to the journal of the host where it runs; `fields` as audit.py names them."""
    return ["python3", "-c", _WRITER.read_text() + _CALL, json.dumps([event, message]), json.dumps(dict(fields))]


def operator() -> str:
    """Who works at this machine, as the machine says."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
