# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""The audit trail: who joined, ran, was refused, rotated or revoked, as entries of the host's own journal.

journald alone appends to it. Everybody on a host may write to the journal, so a reader trusts an entry by the
fields that journald itself adds (`_UID`), never by what the entry says of itself.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

JOURNAL = Path("/run/systemd/journal/socket")
IDENTIFIER = "flowerbed"
# What an entry may hold beside its event and message, each as FLOWERBED_<NAME>; a reader may rely on these names.
FIELDS = ("federation", "site", "run", "app", "app_hash", "node", "fingerprint", "result", "by", "detail")
_EVENT = re.compile(r"[a-z]+\.[a-z]+")
_NOTICE = "5"


def record(event: str, message: str, **fields: str) -> None:
    """Append an entry to the host's journal.

    `event` is what happened, as `site.approved`; `message` says it to people in one line; `fields` are among
    FIELDS, empty ones are left out. Raises ValueError for another event or field, OSError without a journal.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.connect(str(JOURNAL))
        journal.send(entry(event, message, **fields))


def entry(event: str, message: str, **fields: str) -> bytes:
    """The entry in journald's own form, a variable a line."""
    if not _EVENT.fullmatch(event):
        raise ValueError(f"'{event}' is no event: write it like site.approved")
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"'{unknown[0]}' is no field of the audit trail: use {', '.join(FIELDS)}")
    values = {"MESSAGE": message, "PRIORITY": _NOTICE, "SYSLOG_IDENTIFIER": IDENTIFIER, "FLOWERBED_EVENT": event}
    values |= {f"FLOWERBED_{name.upper()}": value for name, value in fields.items() if value}
    return "".join(f"{name}={' '.join(value.split())}\n" for name, value in values.items()).encode()
