"""The process that has imported Flower's command line; `flwr_process` starts it and says what to call.

A request is one packet on standard input, {"argv": [...], "cwd": ...}, with three pipes: for standard output, for
standard error, and for the call's process id and then its exit code, a line each. It ends with its input.
"""

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from importlib import metadata

_PIPES = 3
_REQUEST_LIMIT = 1 << 20


def main() -> None:
    """Import, then fork for every request."""
    (script,) = metadata.entry_points(group="console_scripts", name="flwr")
    command = script.load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a call here
    with socket.socket(fileno=0) as line:
        while True:
            request, pipes, _, _ = socket.recv_fds(line, _REQUEST_LIMIT, _PIPES)
            if not request:
                os._exit(0)  # who closes the line waits, and taking apart what was imported costs a quarter of a second
            if os.fork() == 0:
                line.detach()
                _call(command, request, *pipes)
            for pipe in pipes:
                os.close(pipe)


def _call(command: Callable[[], object], request: bytes, out: int, err: int, told: int) -> None:
    """Be the call: this process ends with it."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.write(told, f"{os.getpid()}\n".encode())
    code = 1
    try:
        wanted = json.loads(request)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(source, target)
            os.close(source)
        os.chdir(wanted["cwd"])
        sys.argv = wanted["argv"]
        command()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:  # whatever it is, the caller is told
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(told, f"{code}\n".encode())
        os._exit(code)


if __name__ == "__main__":
    main()
