"""Joins its standard streams to a session's socket on the coordinator; sent there as text, and run by its Python."""

import os
import socket
import sys
import threading
import time

CHUNK = 1 << 18
NOBODY = 3
"""Exit code where nothing listens at the socket."""


def main(folder: str, name: str, seconds: float) -> int:
    """Wait at most `seconds` for the socket `name` in `folder`, then carry bytes until either end closes."""
    give_up = time.monotonic() + seconds
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                connection.connect(f"/proc/self/fd/{at}/{name}")
            finally:
                os.close(at)
            break
        except OSError as error:
            connection.close()
            if time.monotonic() > give_up:
                print(f"no session listens in {folder}: {error.strerror}", file=sys.stderr)
                return NOBODY
            time.sleep(0.1)
    threading.Thread(target=carry_in, args=(connection,), daemon=True).start()
    try:
        while data := connection.recv(CHUNK):
            while data:
                data = data[os.write(1, data) :]
    except OSError:
        pass  # one of them is gone: that is the end
    return 0


def carry_in(connection: socket.socket) -> None:
    """From standard input to the socket, which is closed with it."""
    try:
        while data := os.read(0, CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other direction ends, too


if __name__ == "__main__":
    code = main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    sys.stderr.flush()
    os._exit(code)
