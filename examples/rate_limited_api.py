"""A rate-limiting buffer in front of an HTTP API that answers 429 to whoever comes too fast.

Orders come in bursts; the API takes so many a second. The queue lets them in no faster than that, producers wait their turn, and no request is refused.
"""
import asyncio
import sys
import tempfile
import time

from aiohttp import ClientSession, web

from overspill import AsyncHybridQueue, RateLimit

ORDERS, A_SECOND, AT_ONCE = 80, 100, 20


class Api:
    """Takes `A_SECOND` requests a second, slowly, and a few more at once."""

    def __init__(self) -> None:
        self.tokens, self.then = 2 * AT_ONCE, time.monotonic()
        self.orders: list[int] = []

    async def take(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        self.tokens = min(2 * AT_ONCE, self.tokens + (now - self.then) * A_SECOND) - 1
        self.then = now
        if self.tokens < 0:
            return web.Response(status=429)
        await asyncio.sleep(0.005)
        self.orders.append((await request.json())["order"])
        return web.Response(status=201)

    async def start(self) -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.router.add_post("/orders", self.take)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/orders"


async def post(session: ClientSession, url: str, order: int) -> int:
    async with session.post(url, json={"order": order}) as answer:
        return answer.status


async def ship(queue: AsyncHybridQueue, session: ClientSession, url: str) -> list[int]:
    return [await post(session, url, order) async for order in queue]  # until it is closed and empty


async def main(folder: str) -> None:
    async with ClientSession() as session:
        runner, url = await Api().start()
        answers = await asyncio.gather(*(post(session, url, order) for order in range(ORDERS)))
        await runner.cleanup()
        print(f"without the queue: {answers.count(429)} of {ORDERS} orders were refused")
        if not answers.count(429):
            sys.exit("the API was to be overwhelmed")

        api = Api()
        runner, url = await api.start()
        began = time.monotonic()
        async with AsyncHybridQueue("orders", folder, memory_size=10, rate_limit=RateLimit(A_SECOND, burst=AT_ONCE, on_limit="wait")) as queue:
            shipping = asyncio.create_task(ship(queue, session, url))
            for order in range(ORDERS):
                await queue.enqueue(order)  # waits its turn
            await queue.close(drain=10)
            answers = await shipping
        took = time.monotonic() - began
        await runner.cleanup()
    print(f"with the queue: {answers.count(429)} were refused, {len(api.orders)} arrived in {took:.1f} s")
    if set(answers) != {201} or sorted(api.orders) != list(range(ORDERS)) or took < (ORDERS - AT_ONCE) / A_SECOND:
        sys.exit("each order was to arrive once, at the API's pace")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))
