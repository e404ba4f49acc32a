"""Leases segments from the queue and PUTs them to the origin, one at a time, so that a stream stays in order.

A failed upload raises inside the `with` of its lease, so the segment takes its old place in line and is the next
to go (unless a premium one has come meanwhile). A stored one is acknowledged. When this process dies in
between, the lease dies with it, the segment comes back, and is sent again under the same name.
"""

from __future__ import annotations

import http.client
import threading

from overspill import HybridQueue, QueueClosed

from .reports import report
from .segment import Segment
from .spool import Spool

ANSWER_TIMEOUT_S = 10.0
PAUSE_AFTER_503_S = 0.08
PAUSE_AFTER_NO_ANSWER_S = 0.25


class UploadFailed(Exception):
    def __init__(self, reason: str, pause_s: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pause_s = pause_s


class Uploader:
    def __init__(self, queue: HybridQueue, spool: Spool, port: int, stop: threading.Event) -> None:
        self._queue = queue
        self._spool = spool
        self._stop = stop
        self._origin = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)

    def run(self) -> None:
        """Until the end marker, or until the queue is closed over our head."""
        while not self._stop.is_set():
            try:
                with self._queue.lease() as delivery:
                    segment: Segment = delivery.item
                    if segment.kind == "end":
                        return  # the lowest priority, and nothing else is out: all the rest is on the origin
                    self._spool.settle(segment.stream, segment.sequence, segment.name)  # rule S2
                    self._put(segment)
            except UploadFailed as failure:
                report("requeued", reason=failure.reason)
                self._stop.wait(failure.pause_s)
            except QueueClosed:
                return

    def _put(self, segment: Segment) -> None:
        try:
            self._origin.request(
                "PUT",
                f"/{segment.stream}/{segment.name}",
                body=segment.body,
                headers={"X-SHA256": segment.sha256, "Content-Type": "application/octet-stream"},
            )
            answer = self._origin.getresponse()
            text = answer.read()
        except ConnectionRefusedError:
            self._origin.close()
            raise UploadFailed("refused", PAUSE_AFTER_NO_ANSWER_S) from None
        except (OSError, http.client.HTTPException):
            self._origin.close()
            raise UploadFailed("broken off", PAUSE_AFTER_NO_ANSWER_S) from None
        if answer.status == 503:
            raise UploadFailed("503", PAUSE_AFTER_503_S)
        if answer.status != 201:
            raise RuntimeError(f"the origin answered {answer.status} to {segment.name}: {text!r}")
