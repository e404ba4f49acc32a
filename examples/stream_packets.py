"""One camera, one uplink: a `StreamQueue` between an encoder that never waits and a network that sometimes does.

The uplink stalls for a while. Fifty packets wait in memory, the others in one file behind it; when the uplink is back they go out in the order in which they came, and the
file is gone.
"""
import hashlib
import os
import sys
import tempfile
import threading

import av
from footage import FRAMES_A_SECOND, SIZE, frames

from overspill import QueueClosed, StreamQueue


def record(stream: StreamQueue, seconds: float) -> str:
    """Encode, and put each packet in line as it comes out of the encoder; returns the SHA-256 of them all."""
    sent = hashlib.sha256()
    camera = av.CodecContext.create("libx264", "w")
    camera.width, camera.height, camera.pix_fmt, camera.framerate = *SIZE, "yuv420p", FRAMES_A_SECOND
    camera.options = {"preset": "ultrafast", "tune": "zerolatency"}
    for frame in [*frames(seconds), None]:  # None: the encoder gives what it has held back
        for packet in camera.encode(frame):
            stream.enqueue(bytes(packet))
            sent.update(bytes(packet))
    return sent.hexdigest()


def transmit(stream: StreamQueue, network: threading.Event, received: list[bytes]) -> None:
    while True:
        network.wait()
        try:
            received.append(stream.dequeue())
        except QueueClosed:
            return


def main(folder: str) -> None:
    network, received = threading.Event(), []
    with StreamQueue("camera-7", memory_size=50, disk_path=folder) as stream:
        uplink = threading.Thread(target=transmit, args=(stream, network, received))
        uplink.start()
        sent = record(stream, seconds=6)
        print(f"the network is down: {stream.stats().depth} packets wait, pressure {stream.get_pressure():.1f}")
        print(f"  {stream.stats().memory_items} in memory, {stream.stats().disk_items} in {os.listdir(folder)[0]}, {stream.stats().disk_bytes:,} bytes")
        behind = stream.has_disk_data()
        network.set()
        left = stream.close(drain=10)
        uplink.join()
    print(f"the network is back: {len(received)} packets, {sum(map(len, received)):,} bytes have gone out; {os.listdir(folder)} is left")
    if not behind:
        sys.exit("the stream was to fall behind and did not")
    if left or hashlib.sha256(b"".join(received)).hexdigest() != sent:
        sys.exit("what was received is not what was sent")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
