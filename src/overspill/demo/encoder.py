"""Encodes live HLS: H.264 in MPEG-TS segments with a growing playlist, several streams, faster than life.

The pictures are synthesised by libavfilter, so no file is needed; the segmenter is libavformat's own, the one
behind `ffmpeg -f hls`. A second of stream takes a fifth of a second here (`PACE`), so minutes of stream pass
in well under one, and every stream finishes several segments a second.

For each finished file the order is: note its SHA-256 in the manifest, then move it into the spool. From then on
the only copy is the queue's responsibility. Nobody who reads the manifest needs to trust the queue.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import msgspec
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from .journal import COMPLETE, Entry, Journal
from .lifeline import die_with_parent
from .places import Places
from .plan import Stream
from .reports import report
from .segment import PLAYLIST_NAME, kind_of
from .spool import Spool

WIDTH, HEIGHT, FRAMES_A_SECOND = 640, 360, 25
BITS_A_SECOND = 2_000_000
SEGMENT_S = 1  # of stream
PACE = 5.0  # seconds of stream in a second of ours
PLAYLIST_EVERY = 8  # segments

PICTURES = (
    ("testsrc2", f"size={WIDTH}x{HEIGHT}:rate={FRAMES_A_SECOND}"),
    ("gradients", f"size={WIDTH // 2}x{HEIGHT // 2}:rate={FRAMES_A_SECOND}:speed=0.05:seed={{seed}}"),
    ("life", f"size={WIDTH // 2}x{HEIGHT // 2}:rate={FRAMES_A_SECOND}:mold=10:ratio=0.3:seed={{seed}}"),
)


class EncoderOrder(msgspec.Struct, frozen=True):
    parent: int
    places: Places
    streams: tuple[Stream, ...]
    duration_s: float


class Picture:
    """An endless moving picture."""

    def __init__(self, stream: Stream) -> None:
        source, options = PICTURES[stream.picture % len(PICTURES)]
        graph = av.filter.Graph()
        chain = [
            graph.add(source, options.format(seed=stream.seed)),
            graph.add("scale", f"{WIDTH}:{HEIGHT}"),
            graph.add("format", "yuv420p"),
            graph.add("buffersink"),
        ]
        for upper, lower in zip(chain, chain[1:]):
            upper.link_to(lower)
        graph.configure()
        self._graph = graph
        self._shown = 0

    def next_frame(self) -> VideoFrame:
        frame = self._graph.vpull()
        frame.pts = self._shown
        frame.time_base = Fraction(1, FRAMES_A_SECOND)
        frame.pict_type = PictureType.NONE  # the encoder decides, by its own clock of key frames
        self._shown += 1
        return frame


class LiveStream:
    """One HLS stream: encodes a segment's worth of pictures at a time and hands over what is finished."""

    def __init__(self, stream: Stream, folder: Path, spool: Spool, manifest: Journal) -> None:
        folder.mkdir(parents=True)
        self.name = stream.name
        self._folder = folder
        self._spool = spool
        self._manifest = manifest
        self._picture = Picture(stream)
        self._finished = 0  # segments
        self._last_playlist = b""
        self._sequence = 0  # of what was handed over, playlists included
        self._container = self._open_container()
        self._video = self._open_video()

    def encode_segment(self) -> None:
        for _ in range(SEGMENT_S * FRAMES_A_SECOND):
            for packet in self._video.encode(self._picture.next_frame()):
                self._container.mux(packet)
        # The segmenter closes a segment at the next one's first key frame, so we are one behind here.
        self._hand_over_finished()

    def close(self) -> None:
        for packet in self._video.encode(None):
            self._container.mux(packet)
        self._container.close()  # closes the last segment and ends the playlist
        self._hand_over_finished()
        self._hand_over_playlist()

    def _open_container(self) -> OutputContainer:
        options = {
            "hls_time": str(SEGMENT_S),
            "hls_list_size": "0",
            "hls_playlist_type": "event",
            "hls_segment_filename": str(self._folder / "%06d.ts"),
            # With temp_file a name appears complete; that is how we see that a segment is finished.
            "hls_flags": "independent_segments+temp_file",
        }
        return av.open(str(self._folder / PLAYLIST_NAME), "w", format="hls", options=options)

    def _open_video(self) -> VideoStream:
        key_every = str(SEGMENT_S * FRAMES_A_SECOND)
        options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "g": key_every,
            "keyint_min": key_every,
            "sc_threshold": "0",
            "threads": "1",
        }
        video = self._container.add_stream("libx264", rate=FRAMES_A_SECOND, options=options)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.bit_rate = BITS_A_SECOND
        return video

    def _hand_over_finished(self) -> None:
        while (path := self._folder / f"{self._finished:06d}.ts").exists():
            self._hand_over(path, frames=SEGMENT_S * FRAMES_A_SECOND)
            self._finished += 1
            if self._finished % PLAYLIST_EVERY == 0:
                self._hand_over_playlist()

    def _hand_over_playlist(self) -> None:
        """A copy, the segmenter goes on writing its own; and no version twice."""
        playlist = (self._folder / PLAYLIST_NAME).read_bytes()
        if playlist == self._last_playlist:
            return
        self._last_playlist = playlist
        copy = self._folder / "outgoing" / PLAYLIST_NAME
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(playlist)
        self._hand_over(copy, frames=0)

    def _hand_over(self, path: Path, *, frames: int) -> None:
        body = path.read_bytes()
        entry = Entry(
            stream=self.name,
            name=path.name,
            kind=kind_of(path.name),
            sha256=hashlib.sha256(body).hexdigest(),
            size=len(body),
            frames=frames,
        )
        self._manifest.note(entry)  # before anybody else can see the file
        self._spool.hand_over(self.name, self._sequence, path)
        self._sequence += 1
        report("produced", stream=entry.stream, kind=entry.kind, size=entry.size, frames=entry.frames)


def encode(order: EncoderOrder) -> None:
    spool = Spool(order.places.spool, [stream.name for stream in order.streams])
    with Journal(order.places.manifest) as manifest:
        lives = [LiveStream(s, order.places.encoder / s.name, spool, manifest) for s in order.streams]
        begun = time.monotonic()
        report("encoding", pid=os.getpid())
        turn = 0
        while (due := turn / (PACE * len(lives))) < order.duration_s:
            late = time.monotonic() - begun - due
            if late < 0:
                time.sleep(-late)
            elif begun + order.duration_s < time.monotonic():
                break  # a machine too slow for the pace makes fewer segments, not a longer demo
            lives[turn % len(lives)].encode_segment()  # the streams take turns, so that they do not come in bursts
            turn += 1
        for live in lives:
            live.close()
        manifest.note(COMPLETE)
    spool.finish()
    report("encoded")


def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=EncoderOrder)
    die_with_parent(order.parent)
    av.logging.set_level(av.logging.ERROR)
    encode(order)


if __name__ == "__main__":
    main()
