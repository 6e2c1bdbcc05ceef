"""A server that answers as AWS does, on a free port of the loopback; prints its address and runs until it is ended."""

import signal
import sys
import threading
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ec2.responses.general import General
from moto.ec2.utils import Base64EncodedString
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

_init = SecurityGroupRule.__init__


def _with_description(rule: Any, *arguments: Any, **named: Any) -> None:
    """Keep a rule's description, as Amazon does: the server forgets it unless the rule names a network."""
    _init(rule, *arguments, **named)
    for target in (value for value in (*arguments, *named.values()) if isinstance(value, dict)):
        rule.ip_range |= {key: value for key, value in target.items() if key == "Description"}


def _console(general: Any) -> ActionResult:
    """Show what a test says that the machine printed; the server's own consoles never get as far as cloud-init."""
    instance = str(general._get_param("InstanceId"))
    printed = Path(sys.argv[1], instance)
    text = printed.read_bytes().decode() if printed.exists() else ""
    return ActionResult({"InstanceId": instance, "Output": Base64EncodedString.from_raw_string(text)})


if __name__ == "__main__":
    General.get_console_output = _console
    SecurityGroupRule.__init__ = _with_description
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    done.wait()
