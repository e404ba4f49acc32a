"""Compares what the encoder noted with what the origin holds. The queue has no say in it.

For every stream:

- each name in the manifest is a file at the origin with the same SHA-256 (of a playlist: its last version),
- the origin stored them in the order of the manifest (repeats left out: a PUT that comes again changes nothing),
- nothing is there that was not made,
- the playlist at the origin decodes, from the origin's files, to as many pictures as were encoded.

Whatever is not so is named in `Verdict.problems`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import av.error
import msgspec

from .journal import Entry, read_journal
from .segment import PLAYLIST_NAME


class Verdict(msgspec.Struct):
    expected: int = 0
    identical: int = 0
    lost: int = 0  # missing or different at the origin
    unexpected: int = 0
    out_of_order: int = 0  # streams that are not in order
    repeated: int = 0  # PUTs of what was already there
    frames_encoded: int = 0
    frames_decoded: int = 0
    problems: list[str] = msgspec.field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(*, manifest: Path, store: Path, journal: Path) -> Verdict:
    verdict = Verdict()
    made = by_stream(read_manifest(manifest, verdict))
    arrived = by_stream(list(read_journal(journal)) if journal.exists() else [])
    for stream, entries in made.items():
        check_bytes(entries, arrived.get(stream, []), store / stream, verdict)
        check_order(stream, entries, arrived.get(stream, []), verdict)
        check_pictures(stream, entries, store / stream / PLAYLIST_NAME, verdict)
    check_nothing_else(made, store, verdict)
    return verdict


def read_manifest(path: Path, verdict: Verdict) -> list[Entry]:
    entries = list(read_journal(path)) if path.exists() else []
    if not entries or entries[-1].kind != "end":
        verdict.problems.append(f"the encoder did not finish its manifest {path}")
        return entries
    if len(entries) == 1:
        verdict.problems.append("the encoder made nothing")
    return entries[:-1]


def by_stream(entries: list[Entry]) -> dict[str, list[Entry]]:
    streams: dict[str, list[Entry]] = {}
    for entry in entries:
        streams.setdefault(entry.stream, []).append(entry)
    return streams


def check_bytes(made: list[Entry], arrived: list[Entry], folder: Path, verdict: Verdict) -> None:
    last_version = {entry.name: entry for entry in made}
    ever_stored = {(entry.name, entry.sha256) for entry in arrived}
    for entry in made:
        verdict.expected += 1
        if entry is not last_version[entry.name]:
            # An early playlist, replaced since: the origin's journal has its check sum, the disk no longer has it.
            problem = "" if (entry.name, entry.sha256) in ever_stored else "never came in an earlier version"
        else:
            problem = compare_file(folder / entry.name, entry.sha256)
        if problem:
            verdict.lost += 1
            verdict.problems.append(f"{entry.stream}/{entry.name} {problem}")
        else:
            verdict.identical += 1


def compare_file(path: Path, sha256: str) -> str:
    """What is wrong with it, or nothing."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return "is missing at the origin"
    return "" if found == sha256 else f"differs: made {sha256}, found {found}"


def check_order(stream: str, made: list[Entry], arrived: list[Entry], verdict: Verdict) -> None:
    first_arrivals = list(dict.fromkeys((entry.name, entry.sha256) for entry in arrived))
    verdict.repeated += len(arrived) - len(first_arrivals)
    expected = [(entry.name, entry.sha256) for entry in made]
    if first_arrivals == expected:
        return
    verdict.out_of_order += 1
    differing = next(
        (n for n, (one, other) in enumerate(zip(expected, first_arrivals)) if one != other),
        min(len(expected), len(first_arrivals)),
    )
    wanted = expected[differing][0] if differing < len(expected) else "nothing more"
    came = first_arrivals[differing][0] if differing < len(first_arrivals) else "nothing more"
    verdict.problems.append(f"{stream} did not arrive in order: at place {differing} {wanted} was due, {came} came")


def check_pictures(stream: str, made: list[Entry], playlist: Path, verdict: Verdict) -> None:
    encoded = sum(entry.frames for entry in made)
    decoded = 0
    try:
        with av.open(str(playlist)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for _ in container.decode(video=0):
                decoded += 1
    except (av.error.FFmpegError, OSError) as error:
        verdict.problems.append(f"{stream} does not decode after {decoded} pictures: {error}")
    verdict.frames_encoded += encoded
    verdict.frames_decoded += decoded
    if decoded != encoded:
        verdict.problems.append(f"{stream} decodes to {decoded} pictures, {encoded} were encoded")


def check_nothing_else(made: dict[str, list[Entry]], store: Path, verdict: Verdict) -> None:
    expected = {(stream, entry.name) for stream, entries in made.items() for entry in entries}
    for path in sorted(store.glob("*/*")):
        if (path.parent.name, path.name) not in expected:
            verdict.unexpected += 1
            verdict.problems.append(f"{path.parent.name}/{path.name} is at the origin, but nobody made it")
