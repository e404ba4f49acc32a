"""Real video for the examples: a moving picture, encoded here and now."""
import io
from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter

SIZE, FRAMES_A_SECOND = (320, 180), 25


def frames(seconds: float = 1) -> Iterator[av.VideoFrame]:
    """FFmpeg's own test picture, which moves and counts."""
    graph = av.filter.Graph()
    source = graph.add("testsrc2", f"size={SIZE[0]}x{SIZE[1]}:rate={FRAMES_A_SECOND}")
    pixels, sink = graph.add("format", "yuv420p"), graph.add("buffersink")
    source.link_to(pixels)
    pixels.link_to(sink)
    graph.configure()
    for n in range(round(seconds * FRAMES_A_SECOND)):
        frame = graph.vpull()
        frame.pts, frame.time_base = n, Fraction(1, FRAMES_A_SECOND)
        yield frame


def encoded(seconds: float = 1) -> bytes:
    """So much H.264 in MPEG-TS: a segment, as HLS has it."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as segment:
        video = segment.add_stream("libx264", rate=FRAMES_A_SECOND, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        for frame in frames(seconds):
            segment.mux(video.encode(frame))
        segment.mux(video.encode(None))
    return file.getvalue()
