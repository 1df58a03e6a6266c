"""As much of HTTP/1.1 as the processes of `make chaos` need, over asyncio: one request for each connection of a caller.

Written out because here it matters what a client library hides: whether an answer was whole, cut off, or never began.
"""

import asyncio
import dataclasses
import json

LARGEST_HEAD = 64 * 1024
LARGEST_BODY = 4 * 1024 * 1024


@dataclasses.dataclass
class Head:
    """A first line and headers, and the bytes they were."""

    line: str
    headers: dict
    raw: bytes

    @property
    def status(self):
        return int(self.line.split(" ")[1])


async def read_head(reader):
    """None where the connection ends before anything came."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise ConnectionResetError("the connection ended within the headers") from error
    line, *fields = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (field.partition(":") for field in fields)
    return Head(line, {name.strip().lower(): value.strip() for name, _, value in pairs}, raw)


async def read_body(reader, head):
    length = int(head.headers.get("content-length", 0))
    if length > LARGEST_BODY:
        raise ValueError("the body is too large")
    return await reader.readexactly(length)


def whole_body(head, raw):
    """The body in what came after `head`, and whether all of it came."""
    if head.headers.get("transfer-encoding") != "chunked":
        length = int(head.headers.get("content-length", len(raw)))
        return raw[:length], len(raw) >= length
    body, rest = b"", raw
    while True:
        size, found, rest = rest.partition(b"\r\n")
        if not found:
            return body, False
        length = int(size, 16)
        if length == 0:
            return body, True
        body += rest[:length]
        if len(rest) < length + 2:
            return body, False
        rest = rest[length + 2 :]


def request(method, path, body=b"", **headers):
    """The bytes of a request after which the connection ends."""
    headers = {"host": "127.0.0.1", "connection": "close", "content-length": len(body), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def answer(status, document):
    body = json.dumps(document).encode()
    return (
        f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    )


async def ask(port, message, within):
    """Status and document of a small answer."""

    async def exchange():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(message)
            head = await read_head(reader)
            if head is None:
                raise ConnectionResetError("no answer")
            body, _ = whole_body(head, await reader.read(LARGEST_BODY) if within else b"")
            return head.status, body
        finally:
            writer.close()

    return await asyncio.wait_for(exchange(), within)


async def is_ready(port, within=1.0):
    """Whether the service with the admin port `port` says that requests may come."""
    try:
        return (await ask(port, request("GET", "/readyz"), within))[0] == 200
    except (OSError, ValueError, asyncio.TimeoutError):
        return False
