"""What the processes tell the supervisor: JSON lines on their standard output.

A report is an event's name and its facts. A line that was written stays readable in the pipe when its writer
is killed a moment later, so counts made from events are exact; figures that are only sampled (the sizes
in a "pulse") are as old as the last sample.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import msgspec

Report = dict[str, Any]

_one_line_at_a_time = threading.Lock()


def report(event: str, **facts: object) -> None:
    line = msgspec.json.encode({"event": event, **facts}) + b"\n"
    with _one_line_at_a_time:
        os.write(1, line)  # unbuffered and in one piece: shorter than PIPE_BUF


def read_report(line: bytes) -> Report:
    return msgspec.json.decode(line, type=Report)
