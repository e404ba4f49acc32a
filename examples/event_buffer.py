"""What has just happened? The last events of a video player: in memory for the support desk, and in a flight recorder for whoever comes after the crash.

Both keep the newest events and forget the oldest by themselves, one by age as well. Nothing has to be cleaned up.
"""
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import count

from overspill import CircularBuffer


def events(viewer: str, n: int) -> list[dict[str, object]]:
    kinds = ["play", "bitrate 4 Mbit/s", "bitrate 2 Mbit/s", "stall", "resume"]
    return [{"viewer": viewer, "at": position, "event": kinds[min(position, 1) + position % 4]} for position in range(n)]


def support_desk() -> None:
    buffer = CircularBuffer(100, ttl=1.5)
    for event in events("ada", 80) + events("bob", 60):
        buffer.push(event)
    print(f"{len(buffer)} events are kept, {buffer.overwritten} were overwritten; the last one: {buffer[-1]}")
    time.sleep(0.5)
    for event in events("eve", 5):
        buffer.push(event)
    recent = buffer.get_recent(0.4)
    print(f"in the last 400 ms: {[event['event'] for event in recent]}")
    stalls = [event for event in buffer if event["event"] == "stall"]
    forgotten = buffer.remove_where(lambda event: event["viewer"] == "ada")
    print(f"{len(stalls)} stalls in all; ada has left, and {forgotten} events with her")
    if (len(recent), len(stalls), forgotten, len(buffer)) != (5, 25, 35, 65):
        sys.exit("not the events that were to be there")
    time.sleep(1.5)
    print(f"a moment later: {len(buffer)} events")
    if len(buffer):
        sys.exit("they were to be gone")


def fly(folder: str) -> None:
    """Push until the end comes, without warning."""
    with CircularBuffer(50, name="recorder", disk_path=folder) as recorder:
        for position in count():
            recorder.push({"at": position, "event": "frame decoded"})
            print(position, flush=True)
            if position == 2024:
                os.kill(os.getpid(), signal.SIGKILL)


def investigate(folder: str) -> None:
    player = subprocess.run([sys.executable, __file__, folder], stdout=subprocess.PIPE, text=True)
    last = int(player.stdout.split()[-1])
    with CircularBuffer(50, name="recorder", disk_path=folder) as recorder:
        print(f"the player was killed by signal {-player.returncode} at {last}; its recorder holds {recorder[0]['at']} to {recorder[-1]['at']}")
        if [event["at"] for event in recorder] != list(range(last - 49, last + 1)):
            sys.exit("the recorder was to hold the last fifty")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fly(sys.argv[1])
    else:
        support_desk()
        with tempfile.TemporaryDirectory() as folder:
            investigate(folder)
