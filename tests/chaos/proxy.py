"""A small HTTP proxy before the edges, as a load balancer would stand there: it sends requests to the edges that say they are ready.

Run as a process of its own with `NAME:PORT:ADMIN_PORT` of each edge: prints its port, ends when its standard input does. A request
is sent to another edge where the first cannot be reached, ends the connection before its answer begins, or answers 503 and says on
its admin port that it is not ready: it refused because it stops. Any other answer is passed on, good or bad, with a header that
names the edge.
"""

import asyncio
import collections
import dataclasses
import itertools
import sys

import wire

LOOK_EVERY_S = 0.1
CONNECT_WITHIN_S = 1.0
# Longer than any answer of the script may take to begin.
ANSWER_WITHIN_S = 60.0


class NoAnswer(Exception):
    """This edge did not answer; another one may."""


@dataclasses.dataclass
class Edge:
    name: str
    port: int
    admin: int
    ready: bool = False


class Proxy:
    def __init__(self, edges):
        self.edges = edges
        self.turns = itertools.count()
        self.counts = collections.Counter()

    async def look(self):
        while True:
            for edge in self.edges:
                edge.ready = await wire.is_ready(edge.admin)
            await asyncio.sleep(LOOK_EVERY_S)

    def order(self):
        turn = next(self.turns) % len(self.edges)
        return sorted(self.edges[turn:] + self.edges[:turn], key=lambda edge: not edge.ready)

    async def serve(self, reader, writer):
        try:
            head = await wire.read_head(reader)
            if head is None:
                return
            body = await wire.read_body(reader, head)
            if head.line.startswith("GET /passed-over "):
                writer.write(wire.answer(200, self.counts))
            else:
                await self.forward(head.raw + body, writer)
            await writer.drain()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            # One of the two sides is gone; the other one sees a connection that ends.
            pass
        finally:
            writer.close()

    async def forward(self, message, writer):
        for edge in self.order():
            try:
                return await self.try_one(edge, message, writer)
            except NoAnswer as why:
                self.counts[f"{edge.name}: {why}"] += 1
        writer.write(wire.answer(502, {"error": {"code": "proxy", "message": "no edge answered"}}))

    async def try_one(self, edge, message, writer):
        connecting = asyncio.open_connection("127.0.0.1", edge.port, limit=wire.LARGEST_HEAD)
        try:
            there, back = await asyncio.wait_for(connecting, CONNECT_WITHIN_S)
        except (OSError, asyncio.TimeoutError):
            edge.ready = False
            raise NoAnswer("not reached") from None
        try:
            try:
                back.write(message)
                head = await asyncio.wait_for(wire.read_head(there), ANSWER_WITHIN_S)
            except OSError:
                head = None
            if head is None:
                edge.ready = False
                raise NoAnswer("ended the connection")
            if head.status == 503 and not await wire.is_ready(edge.admin):
                edge.ready = False
                raise NoAnswer("stopping")
            writer.write(head.raw[:-2] + f"x-edge: {edge.name}\r\n\r\n".encode())
            while piece := await there.read(64 * 1024):
                writer.write(piece)
                await writer.drain()
        finally:
            back.close()


async def main():
    edges = [Edge(name, int(port), int(admin)) for name, port, admin in (word.split(":") for word in sys.argv[1:])]
    proxy = Proxy(edges)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=wire.LARGEST_HEAD)
    looking = asyncio.create_task(proxy.look())
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    looking.cancel()


if __name__ == "__main__":
    asyncio.run(main())
