"""What passes through the queue: a finished piece of a stream, with its bytes.

`Segment` is the message type that the mirror hands to its `HybridQueue`. Name, place in the stream and
check sum travel with the bytes, so that whoever takes it needs to ask nobody where it belongs.

Beside pictures a stream hands over its playlist, again and again, as it grows. A playlist takes its place
in the same numbering: it must never reach the origin before a segment that it names.

The last item of all is `END`, at the lowest priority: who takes it knows that everything else is settled.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["segment", "playlist", "end"]

PLAYLIST_NAME = "index.m3u8"


class Segment(msgspec.Struct, frozen=True):
    stream: str
    sequence: int
    name: str
    kind: Kind
    sha256: str
    body: bytes


END = Segment(stream="", sequence=0, name="", kind="end", sha256="", body=b"")


def kind_of(name: str) -> Kind:
    return "playlist" if name == PLAYLIST_NAME else "segment"
