"""Stop on SIGTERM without losing or repeating a job: refuse what is new, do what can be done in time, leave the rest for the next start.

Run without arguments this plays both parts: it starts the service, terminates it in the middle of its work, starts it again, and looks at what was done.
"""
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from overspill import HybridQueue, QueueClosed, QueueEmpty

JOBS, A_JOB_TAKES_S, GRACE_S = 120, 0.004, 0.1


def work(queue: HybridQueue, done: Path) -> None:
    with done.open("a") as journal:
        while True:
            try:
                job = queue.dequeue(timeout=0.2)  # ours from here on: it is finished even if the queue is closed meanwhile
            except (QueueClosed, QueueEmpty):
                return
            time.sleep(A_JOB_TAKES_S)
            print(job, file=journal, flush=True)


def serve(folder: Path) -> None:
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    queue = HybridQueue("jobs", folder, memory_size=10)
    print(f"  found {queue.recovery}")
    first_start = len(queue) == 0
    worker = threading.Thread(target=work, args=(queue, folder / "done"))
    worker.start()
    if first_start:
        queue.enqueue_batch(list(range(JOBS)))
        print("  working", flush=True)
        terminated.wait()
        queue.close(drain=GRACE_S)
        print(f"  out of time: {queue}")
    worker.join()
    queue.close()


def main(folder: Path) -> None:
    service = [sys.executable, __file__, str(folder)]
    print("the service starts")
    with subprocess.Popen(service, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():
            print(line, end="")
            if "working" in line:
                running.terminate()
    done = (folder / "done").read_text().split()
    print(f"SIGTERM: {len(done)} of {JOBS} jobs were done; the service starts again", flush=True)
    if running.returncode != 0 or not 0 < len(done) < JOBS:
        sys.exit("it was to end in order, in the middle of its work")
    subprocess.run(service, check=True)
    done = (folder / "done").read_text().split()
    print(f"{len(done)} jobs are done, each once and in order")
    if done != [str(n) for n in range(JOBS)]:
        sys.exit(f"or so it was to be: {done}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
