"""What a worker and its work-horses say to each other, and how it is framed.

A frame is a length (4 bytes, big-endian) and MessagePack. The worker never decodes a payload or
a result: a horse prepares the arguments of the finish script, the worker forwards them.
"""

import socket
import struct
from typing import Any

import msgspec
from msgspec import Struct, field

__all__ = ["Assignment", "Frames", "Message", "Outcome", "Report", "receive", "send"]

LENGTH = struct.Struct(">I")


class Assignment(Struct, frozen=True, kw_only=True):
    """One attempt of a job, for a horse to run."""

    queue: str
    kind: str = ""  # of a chunk; a plain function has none
    job_id: str
    token: str
    attempt: int
    data: bytes  # the payload as RQ stores it
    worker: str
    clock_offset_s: float
    timeout_s: int  # hard; RQ's -1 is none
    soft_timeout_s: int = 0  # 0: none
    result_ttl_s: int
    failure_ttl_s: int


class Report(Struct, frozen=True, tag=True):
    """How far a running job is, 0 to 1."""

    progress: float


class Outcome(Struct, frozen=True, kw_only=True, tag=True):
    """How an attempt ended, as the finish script wants it."""

    disposition: str  # finished, failed, lost, giveback, retry
    worked_s: float = 0
    result_ttl_s: int = 0
    failure_ttl_s: int = 0
    is_refused: bool = False
    observations: int = 0
    probes: int = 0
    error: str = ""  # one line, for the log
    fields: dict[str, Any] = field(default_factory=dict)  # of the job's hash
    result: dict[str, Any] = field(default_factory=dict)  # entry of RQ's result stream


Message = Report | Outcome

_encoder = msgspec.msgpack.Encoder()
_decode_assignment = msgspec.msgpack.Decoder(Assignment).decode
_decode_message = msgspec.msgpack.Decoder(Message).decode


def send(sock: socket.socket, message: Assignment | Message) -> None:
    """Send one frame, whole."""
    body = _encoder.encode(message)
    sock.sendall(LENGTH.pack(len(body)) + body)


def receive(sock: socket.socket) -> Assignment | None:
    """Wait for an assignment; None when the worker has closed its end."""
    head = _exactly(sock, LENGTH.size)
    body = head and _exactly(sock, LENGTH.unpack(head)[0])
    return _decode_assignment(body) if body else None


def _exactly(sock: socket.socket, count: int) -> bytes:
    buffer = bytearray()
    while len(buffer) < count:
        part = sock.recv(count - len(buffer))
        if not part:
            return b""
        buffer += part
    return bytes(buffer)


class Frames:
    """The worker's side: bytes come in as they may, whole messages go out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes; give the messages that are whole."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            messages.append(_decode_message(self._buffer[LENGTH.size : end]))
            del self._buffer[:end]
        return messages
