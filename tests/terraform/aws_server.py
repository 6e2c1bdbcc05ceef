"""A server that answers as AWS does, on a free port of the loopback; prints its address and runs until it is ended."""

import signal
import threading
from typing import Any

from moto.ec2.models.security_groups import SecurityGroupRule
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

_init = SecurityGroupRule.__init__


def _with_description(rule: Any, *arguments: Any, **named: Any) -> None:
    """Keep a rule's description, as Amazon does: the server forgets it unless the rule names a network."""
    _init(rule, *arguments, **named)
    for target in (value for value in (*arguments, *named.values()) if isinstance(value, dict)):
        rule.ip_range |= {key: value for key, value in target.items() if key == "Description"}


if __name__ == "__main__":
    SecurityGroupRule.__init__ = _with_description
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    done.wait()
