"""Deliver to a receiver that is down for a while: each failure waits a little longer, nobody waits for anybody else, and a restart in between changes nothing.

A notification that fails is returned with a delay. While it waits it costs nothing, and it is due at its time even if the program has been restarted meanwhile.
"""
import sys
import tempfile
import time

from overspill import HybridQueue


class Receivers:
    """The servers of our customers. Eve's is down, and up again at the fifth attempt."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.delivered: list[str] = []
        self.refusals: list[float] = []

    def notify(self, customer: str, text: str) -> None:
        if customer == "eve" and len(self.refusals) < 4:
            self.refusals.append(time.monotonic())
            raise ConnectionRefusedError(f"{customer} does not answer")
        self.delivered.append(f"{customer}: {text}")


def back_off(attempt: int) -> float:
    """20 ms, 40 ms, 80 ms, …"""
    return 0.02 * 2 ** (attempt - 1)


def deliver(queue: HybridQueue, receivers: Receivers, attempts: int) -> None:
    """So many attempts, or until nothing is left."""
    while attempts and (len(queue) or queue.stats().delayed):
        attempts -= 1
        delivery = queue.lease()  # waits until something is due
        after_ms = 1000 * (time.monotonic() - receivers.began)
        try:
            receivers.notify(**delivery.item)
        except ConnectionRefusedError as error:
            delivery.nack(delay=back_off(delivery.attempts), error=error)
            print(f"{after_ms:5.0f} ms  {error}, attempt {delivery.attempts}; again in {1000 * back_off(delivery.attempts):.0f} ms")
        else:
            delivery.ack()
            print(f"{after_ms:5.0f} ms  {delivery.item['customer']} has it, attempt {delivery.attempts}")


def main(folder: str) -> None:
    receivers = Receivers()
    with HybridQueue("notifications", folder, memory_size=1) as queue:
        for customer in ("eve", "bob", "ada"):
            queue.enqueue({"customer": customer, "text": "your film is ready"})
        deliver(queue, receivers, attempts=4)
    print("          … the program is restarted …")
    with HybridQueue("notifications", folder, memory_size=1) as queue:
        deliver(queue, receivers, attempts=100)
    if receivers.delivered != [f"{customer}: your film is ready" for customer in ("bob", "ada", "eve")]:
        sys.exit(f"each was to get one notification, and nobody to wait for eve: {receivers.delivered}")
    waits = [after - before for before, after in zip(receivers.refusals, receivers.refusals[1:])]
    if any(wait < back_off(attempt) - 0.005 for attempt, wait in enumerate(waits, 1)):
        sys.exit(f"each wait was to be longer than the one before: {waits}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
