"""The language node plugin and sidecar speak over their socket: typed messages in frames.

A frame is `u32 big-endian length | u8 type | JSON object`; the length counts the type and the JSON and is at most 1
MiB. Decoding is strict: anything that is not exactly a known message is a ProtocolError, so that neither side ever acts
on half an understanding. Only HELLO and HEALTH may carry fields this version does not know, because a newer sidecar
must be able to introduce itself and to say how it is. What an older peer would not understand is sent only to one that
has said it does: HELLO says so for ANSWERING, SESSION, PASSING, IDENTIFIED, KEEPING and HERITAGE, ANSWERING for
QUESTION, PASSING for REGISTER and UNREGISTER, and KEEPING for LASTING. No message has a place for a secret: credentials
are files beside the socket, and a frame may be logged.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Final

from csi.errors import ProtocolError

VERSION: Final = 1
MAX_FRAME: Final = 1 << 20
_HEADER: Final = struct.Struct(">I")


class Message:
    """Base class; `TYPE` is the type byte and `DESCRIPTORS` how many file descriptors travel with the frame."""

    __slots__ = ()
    TYPE: ClassVar[int] = 0
    DESCRIPTORS: ClassVar[int] = 0
    TOLERANT: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """Sidecar: here I am. `resume`: I already serve `volume_id` with the options `spec_hash`, and lost the socket.
    `asks`: say ANSWERING if you would answer a QUESTION. `chooses`: a SESSION may come before MOUNT. `passes`: say
    PASSING if you would REGISTER files, before MOUNT too. `watches`: to a QUESTION may come IDENTIFIED. `lasts`: say
    KEEPING if you would keep what a successor of mine needs, and HERITAGE before MOUNT if I am one."""

    TYPE = 1
    TOLERANT = True
    version: int
    pid: int
    resume: bool = False
    volume_id: str = ""
    spec_hash: str = ""
    asks: bool = False
    chooses: bool = False
    passes: bool = False
    watches: bool = False
    lasts: bool = False


@dataclass(frozen=True, slots=True)
class Mount(Message):
    """Node plugin: serve this, with the one /dev/fuse descriptor that comes along. `spec` is the JSON of the
    VolumeSpec (`csi.volume.encode`), `credentials` a directory relative to the socket's ('' when there are none),
    `memory_limit` bytes, `grace` the seconds a leaving sidecar may use to finish uploads."""

    TYPE = 2
    DESCRIPTORS = 1
    version: int
    volume_id: str
    spec_hash: str
    spec: str
    read_only: bool
    credentials: str
    memory_limit: int
    grace: float


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """Sidecar: the kernel's INIT is answered, the mount works."""

    TYPE = 3


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """Sidecar: it will not work. `code` is the name of the error's class."""

    TYPE = 4
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Health(Message):
    """Sidecar, every few seconds: bytes resident, files open, requests being answered, age in seconds of the oldest
    of these, the last error a user could have met ('' if none), and counters for people; what its cgroup counts of
    the memory it is limited to, and that limit (bytes, 0 when not known or without limit)."""

    TYPE = 5
    TOLERANT = True
    memory: int
    open_files: int
    inflight: int
    oldest_request: float
    last_error: str = ""
    statistics: Mapping[str, int | float] = field(default_factory=dict)
    working_set: int = 0
    memory_limit: int = 0


@dataclass(frozen=True, slots=True)
class Drain(Message):
    """Node plugin: finish what is being written within `grace` seconds, then leave."""

    TYPE = 6
    grace: float


@dataclass(frozen=True, slots=True)
class Bye(Message):
    """Either side, before it closes: why. From a sidecar it means that nobody serves the mount any more."""

    TYPE = 7
    reason: str


@dataclass(frozen=True, slots=True)
class Question(Message):
    """Sidecar: which process does the thread `pid` belong to? If `started` is given: is that process, started then,
    ending by a signal now? With `pid` 0: is any process of the pod? With `inode`: does it still have that file of the
    volume open for writing? Pids as the kernel gives them with a request."""

    TYPE = 8
    serial: int
    pid: int
    started: int
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Answer(Message):
    """Node plugin: to the QUESTION `serial`. `process` and `started` are 0 when not asked, not known or not told."""

    TYPE = 9
    serial: int
    process: int = 0
    started: int = 0
    killed: bool = False
    holds: bool = False


@dataclass(frozen=True, slots=True)
class Answering(Message):
    """Node plugin, to a sidecar whose HELLO said that it asks: each QUESTION will get an ANSWER."""

    TYPE = 10


@dataclass(frozen=True, slots=True)
class Session(Message):
    """Node plugin, before MOUNT, to a sidecar whose HELLO said that it chooses: which code is to talk to the kernel."""

    TYPE = 11
    name: str


@dataclass(frozen=True, slots=True)
class Passing(Message):
    """Node plugin, before MOUNT or to who resumes, to a sidecar whose HELLO said that it passes files: on this
    connection each REGISTER and UNREGISTER will get a REGISTERED. The next one is sent when that has come."""

    TYPE = 12


@dataclass(frozen=True, slots=True)
class Register(Message):
    """Sidecar: have the kernel number this local file, so that an open may name it. The descriptors are the mount's
    /dev/fuse and the file."""

    TYPE = 13
    DESCRIPTORS = 2
    serial: int


@dataclass(frozen=True, slots=True)
class Unregister(Message):
    """Sidecar: no open names the file `number` any more. The descriptor is the mount's /dev/fuse."""

    TYPE = 14
    DESCRIPTORS = 1
    serial: int
    number: int


@dataclass(frozen=True, slots=True)
class Registered(Message):
    """Node plugin: done, and to a REGISTER the file's number; or an errno in `error`."""

    TYPE = 15
    serial: int
    number: int = 0
    error: int = 0


@dataclass(frozen=True, slots=True)
class Identified(Message):
    """Node plugin: to the QUESTION `serial`, in place of an ANSWER, which process it is. The descriptor is one of its
    /proc/<pid>/stat: who has it sees that the process is exiting, but not of what."""

    TYPE = 16
    DESCRIPTORS = 1
    serial: int
    process: int
    started: int


@dataclass(frozen=True, slots=True)
class Keeping(Message):
    """Node plugin, before MOUNT or to who resumes, to a sidecar whose HELLO said that it lasts: send LASTING once the
    kernel's INIT is answered."""

    TYPE = 17


@dataclass(frozen=True, slots=True)
class Lasting(Message):
    """Sidecar: should I be killed, another one can go on with these: the mount's /dev/fuse, and the journal of what I
    promised through it (`csi/fs/journal.py`)."""

    TYPE = 18
    DESCRIPTORS = 2


@dataclass(frozen=True, slots=True)
class Heritage(Message):
    """Node plugin, before MOUNT, to a sidecar whose HELLO said that it lasts: the descriptor that comes with MOUNT was
    served before, by one that has ended. The descriptor here is the journal of that one."""

    TYPE = 19
    DESCRIPTORS = 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_KINDS: Final[tuple[type[Message], ...]] = (
    *(Hello, Mount, Ready, Failed, Health, Drain, Bye, Question, Answer, Answering, Session),
    *(Passing, Register, Unregister, Registered, Identified, Keeping, Lasting, Heritage),
)
_MESSAGES: Final[Mapping[int, type[Message]]] = {kind.TYPE: kind for kind in _KINDS}
_FIELDS: Final[Mapping[int, Mapping[str, Field[Any]]]] = {
    number: {item.name: item for item in fields(kind)}  # type: ignore[arg-type]  # every Message is a dataclass
    for number, kind in _MESSAGES.items()
}
_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": _is_number,
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "Mapping[str, int | float]": lambda value: (
        isinstance(value, dict) and all(_is_number(number) for number in value.values())
    ),
}


def encode(message: Message) -> bytes:
    """The frame of `message`. Raises ProtocolError when it is over 1 MiB."""
    # not asdict: it copies what is copied again below, and a question is waited for
    content = {name: getattr(message, name) for name in _FIELDS[message.TYPE]}
    body = json.dumps(content, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")
    if len(body) + 1 > MAX_FRAME:
        raise ProtocolError(f"{type(message).__name__} frame of {len(body) + 1} bytes is over the {MAX_FRAME} allowed")
    return _HEADER.pack(len(body) + 1) + bytes([message.TYPE]) + body


def take_frame(buffer: bytearray) -> Message | None:
    """Remove the first frame from `buffer` and decode it; None when it is not whole yet. Raises ProtocolError."""
    if len(buffer) < _HEADER.size:
        return None
    (length,) = _HEADER.unpack_from(buffer)
    if not 1 <= length <= MAX_FRAME:
        raise ProtocolError(f"a frame of {length} bytes is not allowed, expected 1 to {MAX_FRAME}")
    end = _HEADER.size + length
    if len(buffer) < end:
        return None
    payload = bytes(buffer[_HEADER.size : end])
    del buffer[:end]
    return decode(payload)


def decode(payload: bytes) -> Message:
    """The message of one frame without its length. Raises ProtocolError for anything that is not exactly one."""
    kind = _MESSAGES.get(payload[0]) if payload else None
    if kind is None:
        raise ProtocolError(
            f"frame type {payload[:1].hex() or 'missing'} is unknown, expected 01 to {len(_MESSAGES):02x}"
        )
    try:
        content = json.loads(payload[1:].decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{kind.__name__} frame is not JSON: {_short(error)}") from None
    if not isinstance(content, dict):
        raise ProtocolError(f"{kind.__name__} frame is not a JSON object")
    return _build(kind, content)


def _build(kind: type[Message], content: dict[str, Any]) -> Message:
    known = _FIELDS[kind.TYPE]
    if not kind.TOLERANT and not content.keys() <= known.keys():
        unknown = sorted(content.keys() - known.keys())
        raise ProtocolError(f"{kind.__name__} frame has unknown fields: {_short(', '.join(unknown))}")
    values: dict[str, Any] = {}
    for name, item in known.items():
        if name not in content:
            if item.default is item.default_factory:  # both MISSING: the field is required
                raise ProtocolError(f"{kind.__name__} frame lacks {name}")
            continue
        value = content[name]
        if not _CHECKS[str(item.type)](value):
            raise ProtocolError(f"{kind.__name__} frame: {name} is {_short(repr(value))}, expected {item.type}")
        values[name] = float(value) if item.type == "float" else value
    return kind(**values)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _short(what: object) -> str:
    text = str(what)
    return text if len(text) <= 120 else f"{text[:120]}…"
