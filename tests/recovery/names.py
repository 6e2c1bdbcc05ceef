"""A name server with one name, on the lab's own network: what it answers can be changed at any time."""

import socket
import struct
import threading

_ANSWER_SECONDS = 5
_A = 1
_FOUND = 0x8180
_NO_SUCH_NAME = 0x8183


class NameServer:
    """Answers with an address for one name, and that there is none for all others."""

    def __init__(self, listen: str, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((listen, 53))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._closed = False
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._closed = True
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                question, asker = self._socket.recvfrom(512)
                self._socket.sendto(self._answer(question), asker)
            except OSError:
                if self._closed:
                    return

    def _answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += 1 + question[at]
        (kind,) = struct.unpack(">H", question[at + 1 : at + 3])
        asked = question[12 : at + 5]
        known = ".".join(labels).lower() == self.name
        answers = known and kind == _A
        header = question[:2] + struct.pack(">HHHHH", _FOUND if known else _NO_SUCH_NAME, 1, int(answers), 0, 0)
        if not answers:
            return header + asked
        record = struct.pack(">HHHIH", 0xC00C, _A, 1, _ANSWER_SECONDS, 4) + socket.inet_aton(self.address)
        return header + asked + record
