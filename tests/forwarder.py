"""A TCP forwarder that can be told to misbehave, and a proxy that answers in between.

`Forwarder` passes bytes on, as nginx's stream module or a hospital's NAT does, and can
break connections at a chosen byte. `Meddler` ends TLS with the server's own certificate
and can answer requests itself. Both accept a connection before they know whether there is
anybody behind them, which is what makes a restart look like a TLS handshake that ends.
"""

import asyncio
import socket
import ssl
import struct
import threading
from contextlib import suppress

HOST = "127.0.0.1"


class Forwarder:
    """Passes TCP on to `target`; what it met is counted."""

    def __init__(self, target):
        self.target = target
        self.met = 0  # connections taken
        self.vain = 0  # of them with nobody behind
        self.closed = threading.Event()  # new connections end at once, as in a restart
        self._writers = set()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def drop(self):
        """Reset every connection that is open."""
        self._loop.call_soon_threadsafe(self._drop)

    def close(self):
        """Stop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self, ready):
        asyncio.set_event_loop(self._loop)
        listening = self._loop.run_until_complete(self._listen())
        self.port = listening.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        listening.close()
        self._drop()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    def _listen(self):
        return asyncio.start_server(self._meet, HOST, 0, backlog=1024)

    def _drop(self):
        for writer in list(self._writers):
            reset(writer)

    async def _meet(self, reader, writer):
        self.met += 1
        if self.closed.is_set():
            writer.close()
            return
        try:
            there, back = await self._reach()
        except OSError:
            self.vain += 1
            writer.close()
            return
        self._writers |= {writer, back}
        try:
            await self._pass(reader, writer, there, back)
        finally:
            self._writers -= {writer, back}
            for one in (writer, back):
                one.close()

    def _reach(self):
        return asyncio.open_connection(HOST, self.target)

    async def _pass(self, reader, writer, there, back):
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


class Meddler(Forwarder):
    """Ends TLS, reads requests, and answers those that it was told to by itself.

    `home` has the server's certificate, key and CA. Rules are by path: `instead` answers
    with a status so many times, `cut` breaks the connection in the middle of a request,
    `swallow` passes a request on and breaks the connection before its answer.
    """

    def __init__(self, home, target):
        self._inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._inside.load_cert_chain(home / "server.crt", home / "server.key")
        self._outside = ssl.create_default_context(cafile=home / "ca.crt")
        self.instead = {}  # path -> [status, times]
        self.cut = {}  # path -> times
        self.swallow = {}
        self.broken = 0  # connections, by either
        self.asked = {}  # path -> requests
        super().__init__(target)

    def _listen(self):
        return asyncio.start_server(self._meet, HOST, 0, ssl=self._inside, backlog=1024)

    def _reach(self):
        return asyncio.open_connection("localhost", self.target, ssl=self._outside)

    async def _pass(self, reader, writer, there, back):
        with suppress(OSError, asyncio.IncompleteReadError):
            while head := await _head(reader):
                path = head.split(b" ", 2)[1].decode()
                body = await reader.readexactly(_length(head))
                self.asked[path] = self.asked.get(path, 0) + 1
                if self._take(self.instead.get(path, [0, 0]), 1):
                    status = self.instead[path][0]
                    told = f"HTTP/1.1 {status} no\r\ncontent-length: 0\r\n\r\n"
                    writer.write(told.encode())
                    await writer.drain()
                    continue
                if self._take(self.cut, path):
                    back.write(head + body[: len(body) // 2])
                    await back.drain()
                    self._break(writer, back)
                    return
                back.write(head + body)
                await back.drain()
                answer = await _head(there)
                answer += await there.readexactly(_length(answer))
                if self._take(self.swallow, path):
                    self._break(writer, back)
                    return
                writer.write(answer)
                await writer.drain()

    @staticmethod
    def _take(rules, name):
        left = rules[name] if isinstance(rules, list) else rules.get(name, 0)
        if left > 0:
            rules[name] = left - 1
        return left > 0

    def _break(self, *writers):
        self.broken += 1
        for writer in writers:
            reset(writer)


async def _copy(reader, writer):
    with suppress(OSError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    writer.close()


async def _head(reader):
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return b""


def _length(head):
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def reset(writer):
    """End a connection as a firewall does that has forgotten it."""
    bare = writer.get_extra_info("socket")
    with suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
