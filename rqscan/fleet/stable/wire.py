"""What a worker and its work-horses say to each other, and how it is framed.

A frame is a length (4 bytes, big-endian) and MessagePack. The worker never decodes a payload or
a result: a horse prepares the arguments of the finish script, the worker forwards them.
"""

import socket
import struct
from typing import Any

import msgspec
from msgspec import Struct, field, structs

__all__ = [
    "NEWS",
    "REPORT_S",
    "Assignment",
    "Frames",
    "Message",
    "Outcome",
    "Report",
    "Terms",
    "frame",
    "receive",
    "send",
]

LENGTH = struct.Struct(">I")

NEWS = struct.Struct("iiq")
"""What a template tells: pid (0: no fork), wait status (-1: a fork), most memory used (kB)."""

AT_ONCE_BYTES = 16_384
"""Room for one read: larger than most payloads, and small beside what a new process must copy."""

REPORT_S = 1.0
"""Shortest time between two reports of progress: what is not told yet is not older."""


MAX_LABEL = 100
"""Characters of it: RQ takes any description of a job."""


class Assignment(Struct, frozen=True, kw_only=True):
    """One attempt of a job, for a horse to run; or, with `after`, what its end entails."""

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
    failures: int = 0  # of the job before this attempt
    retries: int = 0  # how many failures are tried again
    retry_backoff_s: float = 0
    retry_backoff_max_s: float = 0
    grace_s: int = 0  # the horse minds the hard limit itself, and is killed so much later
    job: dict[bytes, bytes] = field(default_factory=dict)  # the whole hash, of a plain function
    after: str = ""  # finished, failed, stopped…: the end of the job that is to be followed up

    @property
    def label(self) -> str:
        """What runs, for the fleet to see: a chunk's kind, or the function of a plain job."""
        about = self.job.get(b"description", b"").decode(errors="replace")
        return self.kind or about.partition("(")[0].strip()[:MAX_LABEL]

    @property
    def is_plain(self) -> bool:
        """Whether it needs RQ's own classes, which only horses of the full template have."""
        return bool(self.job or self.after)


class Report(Struct, frozen=True, tag=True):
    """How far a running job is, 0 to 1."""

    progress: float


class Terms(Struct, frozen=True, kw_only=True, tag=True):
    """What the kind of a job that has begun asks for, where that is not the queue's."""

    stall_timeout_s: float = 0  # without progress for so long it is stopped; 0: never
    retries: int | None = None

    def apply(self, assignment: Assignment) -> Assignment:
        """Give the assignment with the kind's retries in place of the queue's."""
        if self.retries is None:
            return assignment
        return structs.replace(assignment, retries=self.retries)


class Outcome(Struct, frozen=True, kw_only=True, tag=True):
    """How an attempt ended, as the finish script wants it."""

    disposition: str  # finished, failed, stopped, lost, giveback, retry
    worked_s: float = 0
    result_ttl_s: int = 0
    failure_ttl_s: int = 0
    retries: int = 0  # most failures that are tried again
    retry_delay_s: float = 0  # of a repetition too
    is_repeated: bool = False  # queued again though it is finished
    is_front: bool = False  # of its queue, when it is queued again
    is_recorded: bool = True  # False: the store does not know yet how its chunk ended
    is_going_on: bool = False  # the horse takes another job
    is_refused: bool = False
    observations: int = 0
    probes: int = 0
    spooled: int = 0  # of the observations, those that are not in the store yet
    error: str = ""  # one line, for the log
    poison: str = ""  # the error of a lost job that was lost too often
    fields: dict[str, Any] = field(default_factory=dict)  # of the job's hash
    result: dict[str, Any] = field(default_factory=dict)  # entry of RQ's result stream


Message = Report | Terms | Outcome

_encoder = msgspec.msgpack.Encoder()
_decode_assignment = msgspec.msgpack.Decoder(Assignment).decode
_decode_message = msgspec.msgpack.Decoder(Message).decode


def frame(message: Assignment | Message) -> bytes:
    """Give the bytes of a message."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def send(sock: socket.socket, message: Assignment | Message) -> None:
    """Send one frame, whole."""
    sock.sendall(frame(message))


def receive(sock: socket.socket) -> Assignment | None:
    """Wait for an assignment; None when the worker has closed its end.

    The next one is not sent before this one has ended, so what comes is one frame.
    """
    frame, end = bytearray(), LENGTH.size
    while len(frame) < end:
        part = sock.recv(AT_ONCE_BYTES)
        if not part:
            return None
        frame += part
        if len(frame) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(frame)[0]
    return _decode_assignment(memoryview(frame)[LENGTH.size :])


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
