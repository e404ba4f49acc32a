"""A job queue for transcoding: urgent jobs first, leases that are held while a worker works, and dead letters for what cannot be done.

The jobs are real: H.264 is decoded, made smaller, and encoded again. One upload is broken. It is tried twice, set apart with its error, repaired, and done after all.
"""
import io
import sys
import tempfile
import threading

import av
from footage import encoded

from overspill import HybridQueue, Priority, QueueEmpty


def transcode(source: bytes, height: int) -> bytes:
    file = io.BytesIO()
    with av.open(io.BytesIO(source)) as given, av.open(file, "w", format="mpegts") as made:
        video = made.add_stream("libx264", rate=given.streams.video[0].average_rate, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = height * 16 // 9, height, "yuv420p"
        for frame in given.decode(video=0):
            made.mux(video.encode(frame.reformat(video.width, video.height)))
        made.mux(video.encode(None))
    return file.getvalue()


def work(jobs: HybridQueue, made: dict[str, bytes]) -> None:
    while True:
        try:
            with jobs.lease(timeout=0) as delivery, delivery.heartbeat():  # ours for as long as it takes, and never if we die
                job = delivery.item
                made[job["name"]] = transcode(job["source"], job["height"])
                print(f"  {job['name']:9} {len(job['source']):7,} → {len(made[job['name']]):6,} bytes, attempt {delivery.attempts}")
        except av.error.FFmpegError as error:
            print(f"  {job['name']:9} failed, attempt {delivery.attempts}: {error.strerror}")
        except QueueEmpty:
            return


def run_workers(jobs: HybridQueue, made: dict[str, bytes], n: int = 2) -> None:
    workers = [threading.Thread(target=work, args=(jobs, made)) for _ in range(n)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def main(folder: str) -> None:
    made: dict[str, bytes] = {}
    film, names = encoded(seconds=2), ["archive 1", "archive 2", "episode 1", "episode 2", "trailer"]
    with HybridQueue("transcoding", folder, memory_size=2, max_attempts=2, lease_timeout=10) as jobs:
        for name in names:
            priority = {"archive": Priority.LOW, "episode": Priority.NORMAL, "trailer": Priority.HIGH}[name.split()[0]]
            jobs.enqueue({"name": name, "source": film if name != "episode 2" else film[:100], "height": 90}, priority=priority)
        print(jobs)
        if jobs.peek()["name"] != "trailer":
            sys.exit("the trailer was to be first, although it came last")
        run_workers(jobs, made)
        if len(jobs.dead_letters) != 1:
            sys.exit(f"one job was to fail: {jobs.dead_letters}")
        letter = jobs.dead_letters.try_dequeue()
        print(f"dead: {letter.item['name']} after {letter.attempts} attempts: {letter.error}")
        print("repaired, and back in line")
        jobs.enqueue({**letter.item, "source": film}, priority=letter.priority)
        run_workers(jobs, made)
    if sorted(made) != names:
        sys.exit(f"not all was made: {list(made)}")
    for name, film in made.items():
        with av.open(io.BytesIO(film)) as seen:
            if [frame.height for frame in seen.decode(video=0)] != [90] * 50:
                sys.exit(f"{name} is not what it should be")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
