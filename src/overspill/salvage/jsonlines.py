"""Items as JSON Lines, out and in again.

One object a line. What the item is stands under exactly one of three keys: `text` (kind `str`, or JSON as it was written), `item` (kind `auto`, where JSON says all of
it), `base64` (the payload of anything else). Beside it: `id`, `sequence`, `priority`, `enqueued_at`, `expires_at` (absent if never), `attempts`, `kind`, `due_at` (of delayed
items), `died_at`, `reason` and `error` (of dead letters, which are put in line when they are read back), and `front` for
what was put in front. A line that is read back gives the same payload, kind, id, dates, priority and attempts; its sequence number is new: order is the order of the lines.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import IO, Any, Final, NamedTuple

from .._store import inspection
from .._store.inspection import Problem, StoredItem
from .._runtime.apart import REASONS
from .._runtime.parts import Restored
from ..codecs import decompress
from ..errors import CorruptedData, QueueError
from ..item import KIND_AUTO, KIND_JSON, KIND_NAMES, KIND_RAW, KIND_STR
from ..hybrid import HybridQueue
from ..options import ITEM_SIZE_CEILING, MiB
from ..serializers import resolve
from .folders import require_queue
from .stored import Item, Stored, kind_and_payload

__all__ = ["BadLine", "CannotResume", "Exported", "Line", "delivery_fields", "export", "import_lines", "item_fields", "lines_of", "last_complete_line", "parse_line", "payload_of", "time_text"]

BATCH_ITEMS: Final = 1000
"""How many items a tool moves at once, at the most."""

_KIND_NUMBERS: Final = {name: kind for kind, name in KIND_NAMES.items()}
_auto: Final = resolve("auto")


class BadLine(QueueError):
    """A line of an export that cannot be read; says which and why."""


class CannotResume(QueueError):
    """The log does not say how far an import came."""


def time_text(ns: int) -> str:
    """A moment in nanoseconds since the epoch, exactly, as RFC 3339 in UTC; the bare number for a clock that was far off."""
    whole, rest = divmod(ns, 10**9)
    try:
        return f"{datetime.fromtimestamp(whole, timezone.utc):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"
    except (OverflowError, ValueError, OSError):
        return str(ns)


_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z", re.ASCII)


def _time_ns(text: object) -> int:
    if isinstance(text, str):
        if match := _TIME.fullmatch(text):
            return round(datetime.fromisoformat(match[1]).replace(tzinfo=timezone.utc).timestamp()) * 10**9 + int(match[2])
        if re.fullmatch(r"-?\d{1,20}", text, re.ASCII):
            return int(text)
    raise ValueError(f"{text!r} is no time such as 2026-01-31T12:00:00.000000000Z")


# Out.


def payload_of(item: StoredItem) -> bytes:
    """The payload of a stored item, decompressed. Raises `CorruptedData`."""
    return decompress(item.codec, item.payload, item.raw_length, ITEM_SIZE_CEILING)


def _content(kind: int, payload: bytes) -> dict[str, Any]:
    """What the item is, in the most readable form that loses nothing."""
    if kind in (KIND_STR, KIND_JSON):
        try:
            return {"text": payload.decode("utf-8")}
        except UnicodeDecodeError:
            pass
    elif kind == KIND_AUTO:
        try:
            value = _auto.decode(kind, payload)
            if _auto.encode(json.loads(json.dumps(value, allow_nan=False))) == (kind, payload):
                return {"item": value}
        except (QueueError, TypeError, ValueError, RecursionError):
            pass  # a tuple, a date, a set: JSON has no word for it
    return {"base64": base64.b64encode(payload).decode("ascii")}


def item_fields(item: StoredItem) -> dict[str, Any]:
    """A stored item as an object of an export."""
    return {
        "id": str(uuid.UUID(bytes=item.id)),
        "sequence": item.sequence,
        "priority": item.priority,
        "enqueued_at": time_text(item.enqueued_ns),
        **({"expires_at": time_text(item.expiry_ns)} if item.expiry_ns else {}),
        "attempts": item.attempts,
        **({"front": True} if item.place < 0 else {}),
        **({"due_at": time_text(item.due_ns)} if item.due_ns else {}),
        **({"died_at": time_text(item.death.dead_ns), "reason": REASONS.get(item.death.reason, str(item.death.reason)), "error": item.death.error} if item.death else {}),
        "kind": KIND_NAMES.get(item.kind, str(item.kind)),
        **_content(item.kind, payload_of(item)),
    }


def delivery_fields(delivery: Any) -> bytes:
    """A delivery of a queue that was opened as stored, as a line without its end."""
    kind, payload = kind_and_payload(delivery.item)
    fields = {
        "id": str(delivery.id), "priority": delivery.priority, "enqueued_at": time_text(round(delivery.enqueued_at * 1e9)), "attempts": delivery.attempts,
        "kind": KIND_NAMES.get(kind, str(kind)), **_content(kind, payload),
    }  # fmt: skip
    return json.dumps(fields, ensure_ascii=False).encode()


class Exported(NamedTuple):
    """How an export ended."""

    items: int
    skipped: int
    """Passed over, for they were in the file already."""
    problems: tuple[Problem, ...]


_Key = tuple[int, int, int]
"""Where an item stands in an export: items in line, then delayed ones, then dead letters."""


def _key_of(item: StoredItem) -> _Key:
    if item.death is not None:
        return 2, item.death.dead_ns, item.sequence
    return (1, item.due_ns, item.sequence) if item.due_ns else (0, -item.priority, item.place)


def last_complete_line(file: IO[bytes]) -> tuple[int, bytes]:
    """Where the last complete line of a file ends, and that line; (0, b"") if there is none. Reads from the end."""
    size = file.seek(0, io.SEEK_END)
    behind, tail, at = 0, b"", size
    while at > 0:
        step = min(1 << 16, at)
        at -= step
        file.seek(at)
        tail = file.read(step) + tail
        end = behind or (at + tail.rfind(b"\n") + 1 if b"\n" in tail else 0)
        if end:
            behind = end
            begin = tail.rfind(b"\n", 0, end - at - 1)
            if begin >= 0 or at == 0:
                return end, tail[begin + 1 : end - at - 1]
    return 0, b""


def export(
    path: str | os.PathLike[str], out: IO[bytes], *, resume: bool = False, dead_letters: bool = False, on_step: Callable[[int], None] = lambda n: None,
    on_problem: Callable[[Problem], None] = lambda problem: None,
) -> Exported:  # fmt: skip
    """Write what waits in a queue's folder to a file, a line of JSON each, in the order in which it would leave; then the delayed items, and with
    `dead_letters` those. Changes nothing in the folder, and works beside its owner.

    `resume`: `out` is an earlier export, open for reading and writing, that was cut short; what it has whole is kept and gone on behind. Damaged items are left out and told to `on_problem`:
    a wrong payload is never written. Memory is the same for any number of items. Raises `NoQueue` for a folder that is none, before anything is written.
    """
    require_queue(path)
    last = _resumed(out) if resume else None
    problems: list[Problem] = []
    n = skipped = 0

    def tell(problem: Problem) -> None:
        problems.append(problem)
        on_problem(problem)

    for item in inspection.items(path, on_problem=tell, delayed=True, dead_letters=dead_letters):
        if last is not None and _key_of(item) <= last:
            skipped += 1
            continue
        try:
            line = json.dumps(item_fields(item), ensure_ascii=False).encode()
        except CorruptedData as error:
            tell(Problem(item.segment, item.offset, error.message))
            continue
        out.write(line + b"\n")
        n += 1
        on_step(1)
    out.flush()
    return Exported(n, skipped, tuple(problems))


def _resumed(out: IO[bytes]) -> _Key | None:
    end, line = last_complete_line(out)
    out.seek(end)
    out.truncate()
    if not end:
        return None
    fields = parse_line(line, None)
    if fields.died_ns:
        return 2, fields.died_ns, fields.sequence
    return (1, fields.due_ns, fields.sequence) if fields.due_ns else (0, -fields.priority, -fields.sequence if fields.front else fields.sequence)


# In.


class Line(NamedTuple):
    """A line of an export, checked."""

    item: Item
    id: bytes
    sequence: int
    priority: int
    enqueued_ns: int
    expiry_ns: int
    attempts: int
    front: bool
    due_ns: int
    died_ns: int


_KEYS: Final = frozenset(["id", "sequence", "priority", "enqueued_at", "expires_at", "attempts", "front", "kind", "due_at", "died_at", "reason", "error", "text", "item", "base64"])


def parse_line(line: bytes, number: int | None) -> Line:
    """Read one line. What is missing gets what a new item has; what is there must be right. Raises `BadLine`."""
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise ValueError("it is not a JSON object")
        if unknown := sorted(fields.keys() - _KEYS):
            raise ValueError(f"nobody here knows the key {unknown[0]!r}")
        return Line(
            _item_in(fields),
            uuid.UUID(fields["id"]).bytes if "id" in fields else b"",
            _whole(fields, "sequence", 0, 2**63 - 1, 0),
            _whole(fields, "priority", 0, 255, 128),
            _time_ns(fields["enqueued_at"]) if "enqueued_at" in fields else 0,
            _time_ns(fields["expires_at"]) if "expires_at" in fields else 0,
            _whole(fields, "attempts", 0, 255, 0),
            bool(fields.get("front", False)),
            _time_ns(fields["due_at"]) if "due_at" in fields else 0,
            _time_ns(fields["died_at"]) if "died_at" in fields else 0,
        )
    except (ValueError, TypeError, AttributeError, RecursionError, QueueError) as error:
        where = f"line {number}" if number is not None else "the last line of the export"
        raise BadLine(f"{where} is no exported item: {error}") from error


def _whole(fields: dict[str, Any], key: str, least: int, most: int, default: int) -> int:
    value = fields.get(key, default)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{key} is {value!r}, and must be a number from {least} to {most}")
    return value


def _item_in(fields: dict[str, Any]) -> Item:
    given = [key for key in ("text", "item", "base64") if key in fields]
    if len(given) != 1:
        raise ValueError("it must have exactly one of the keys text, item and base64")
    name = fields.get("kind", {"text": "str", "item": "auto", "base64": "raw"}[given[0]])
    kind = _KIND_NUMBERS.get(name)
    if kind is None:
        raise ValueError(f"nobody here knows the kind {name!r}")
    if given[0] == "item":
        kind, payload = _auto.encode(fields["item"])
    elif given[0] == "text":
        if not isinstance(fields["text"], str):
            raise ValueError("text must be a string")
        payload = fields["text"].encode("utf-8")
    else:
        payload = base64.b64decode(fields["base64"], validate=True)
    return payload if kind == KIND_RAW else Stored(kind, payload)


def lines_of(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of an export with their numbers, from 1; blank ones left out."""
    for number, line in enumerate(file, 1):
        if line.strip():
            yield number, line


def import_lines(
    q: HybridQueue, file: IO[bytes], *, resume: bool = False, on_step: Callable[[int], None] = lambda n: None, batch_bytes: int = MiB,
) -> tuple[int, int]:
    """Put the lines of an export into a queue that was opened as stored (`open_queue`); returns how many were put and how many passed over.

    Lines go in by batches, each all or nothing. `resume`, for a file that can be read twice: the lines up to the last one that is in the queue's log already are passed over, so an
    import that was killed goes on where it was. Raises `BadLine`, and what was put before stays; `CannotResume` where the log does not say how far it came.
    """
    passed = _imported(q, file) if resume else 0
    n = 0
    batch: list[Restored] = []
    room = batch_bytes
    for number, text in lines_of(file):
        if number <= passed:
            continue
        line = parse_line(text, number)
        batch.append(Restored(line.item, line.id, line.priority, line.enqueued_ns, line.expiry_ns, 0 if line.died_ns else line.attempts, line.due_ns))
        room -= len(text)
        if room <= 0 or len(batch) >= BATCH_ITEMS:
            q._restore(batch)
            n += len(batch)
            on_step(len(batch))
            batch, room = [], batch_bytes
    q._restore(batch)
    on_step(len(batch))
    return n + len(batch), passed


def _imported(q: HybridQueue, file: IO[bytes]) -> int:
    """The number of the last line that is in the queue's log. The log alone says so: what is kept beside it could be wrong.

    The last line that was put is the newest record, unless somebody else has put items since; so many of these as a batch has lines may be in between. What a log does not know any more, because
    it was taken and its segment is gone, could be put a second time only in silence: that is refused.
    """
    assert q._disk is not None
    known = {id for id, _ in inspection.newest_ids(q._disk.path, BATCH_ITEMS)}
    start = file.tell()
    passed = 0
    for number, text in lines_of(file):
        line = parse_line(text, number)
        if not line.id:
            raise CannotResume(f"line {number} has no id, so that nobody can tell whether it was put", where=q._disk.path, hint="import without --resume what was not imported")
        if line.id in known:
            passed = number
    file.seek(start)
    if not passed and q._next_sequence > 1:
        raise CannotResume(
            f"none of the lines is among the last {BATCH_ITEMS:,} records of the log: nothing was imported, or it was taken out, or others have put more than that since", where=q._disk.path,
            hint="compare what is there (overspill peek), and import without --resume the lines that were not imported",
        )
    return passed
