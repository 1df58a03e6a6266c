"""A model server that speaks the OpenAI protocol and answers by a script: what it says and how fast depends on the request alone.

Run as a process of its own: prints its port, ends when its standard input does. Each chat replica asks it under a path of its own,
and the answer names that replica, so that callers know who served them.
"""

import asyncio
import collections
import json
import re
import sys

import wire

# Harmless, and long enough for more than one window of content safety.
TALE = (
    "The garden has roses, tulips and daisies, and a small pond with three ducks. In the morning the gardener waters the "
    "beds, and in the evening the children feed the ducks with a little bread. Nobody is ever in a hurry there."
)
# Seconds between words. An answer of `steady` takes most of a second: whatever dies has answers in the middle.
PACE = {"steady": 0.018, "quick": 0.002, "narrow": 0.005, "slow": 0.1}
# Seconds before the first word.
WAIT = {"slow": 4.0}


def told(replica, number):
    """What `replica` answers to note `number`."""
    return f"[{replica}] Note {number}: {TALE} The end."


class Upstream:
    def __init__(self):
        self.running = collections.Counter()
        self.most = collections.Counter()

    async def serve(self, reader, writer):
        try:
            while (head := await wire.read_head(reader)) is not None:
                body = await wire.read_body(reader, head)
                path = head.line.split(" ")[1]
                if path == "/most":
                    writer.write(wire.answer(200, self.most))
                else:
                    await self.generate(path.split("/")[1], json.loads(body), writer)
                await writer.drain()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            # Whoever asked is gone, which is what all this is about.
            pass
        finally:
            writer.close()

    async def generate(self, replica, body, writer):
        model = body["model"]
        number = re.search(r"number (\d+)", json.dumps(body["messages"][-1]["content"]))[1]
        self.running[model] += 1
        self.most[model] = max(self.most[model], self.running[model])
        try:
            await asyncio.sleep(WAIT.get(model, 0))
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            words = re.findall(r"\S+\s*", told(replica, number))
            for word in words:
                await self.event(writer, {"choices": [{"index": 0, "delta": {"content": word}}]})
                await asyncio.sleep(PACE[model])
            await self.event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            count = len(words)
            usage = {"prompt_tokens": 8, "completion_tokens": count, "total_tokens": 8 + count}
            await self.event(writer, {"choices": [], "usage": usage})
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        finally:
            self.running[model] -= 1

    @staticmethod
    async def event(writer, document):
        document |= {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        event = f"data: {json.dumps(document)}\n\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()


async def main():
    server = await asyncio.start_server(Upstream().serve, "127.0.0.1", 0, limit=wire.LARGEST_HEAD)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
