"""Upload live HLS: premium streams first, failed uploads back in their place, every byte compared at the end.

Segments come in faster than a flaky origin takes them. Four are kept in memory and the rest on disk, and nothing here has to know which.
"""
import hashlib
import http.client
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from footage import encoded

from overspill import HybridQueue, Priority

STREAMS = {"news": Priority.NORMAL, "football": Priority.HIGH}  # football has paid


class FlakyOrigin(BaseHTTPRequestHandler):
    """Stores what is PUT, and is not up to it every third time."""

    stored: dict[str, str] = {}
    requests = 0

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        FlakyOrigin.requests += 1
        healthy = FlakyOrigin.requests % 3 != 0
        if healthy:
            self.stored[self.path] = hashlib.sha256(body).hexdigest()
        self.send_response(201 if healthy else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def upload(port: int, path: str, body: bytes) -> None:
    origin = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        origin.request("PUT", path, body)
        status = origin.getresponse().status
        if status != 201:
            raise ConnectionError(f"{path}: the origin says {status}")
    finally:
        origin.close()


def main(folder: str) -> None:
    origin = ThreadingHTTPServer(("127.0.0.1", 0), FlakyOrigin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    produced = {}
    with HybridQueue("segments", folder, memory_size=4) as queue:
        for n in range(6):
            for stream, priority in STREAMS.items():
                segment = {"path": f"/{stream}/{n:06}.ts", "body": encoded(seconds=0.5 + n / 10)}
                produced[segment["path"]] = hashlib.sha256(segment["body"]).hexdigest()
                queue.enqueue(segment, priority=priority)
        print(queue)
        while len(queue):
            try:
                with queue.lease() as delivery:  # done at the end of the block; back in its place after an exception
                    upload(origin.server_port, delivery.item["path"], delivery.item["body"])
                    print(f"{delivery.item['path']}  {len(delivery.item['body']):6,} bytes  attempt {delivery.attempts}")
            except ConnectionError as error:
                print(error)
        stats = queue.stats()
    origin.shutdown()
    origin.server_close()
    print(f"{len(FlakyOrigin.stored)} of {len(produced)} segments arrived, {stats.redelivered} of them at the second attempt")
    arrived = list(FlakyOrigin.stored)
    if FlakyOrigin.stored != produced:
        sys.exit("what arrived is not what was produced")
    if arrived != sorted(arrived):  # football, then news, each by number
        sys.exit(f"out of order: {arrived}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
