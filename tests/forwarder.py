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
        self.cut = 0  # connections broken on purpose
        self.up = 0  # bytes from nodes
        self.closed = threading.Event()  # new connections end at once, as in a restart
        self._cut_at = None  # bytes of one connection, upwards
        self._cuts = 0
        self._writers = set()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def cut_uploads(self, after, times=1):
        """Reset the next connections that carry more than `after` bytes upwards."""
        self._cuts, self._cut_at = times, after

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
        await asyncio.gather(
            self._copy(reader, back, upwards=writer), self._copy(there, writer)
        )

    async def _copy(self, reader, writer, upwards=None):
        carried = 0
        with suppress(OSError):
            while part := await reader.read(65536):
                carried += len(part)
                if upwards is not None:
                    self.up += len(part)
                    if self._cuts and carried > self._cut_at:
                        self._cuts -= 1
                        self.cut += 1
                        reset(upwards)
                        reset(writer)
                        return
                writer.write(part)
                await writer.drain()
        writer.close()


class Meddler(Forwarder):
    """Ends TLS, reads requests, and answers those that it was told to by itself.

    `home` has the server's certificate, key and CA. What is in `instead` is answered with
    its status as often as it says: path -> [status, times].
    """

    def __init__(self, home, target):
        self._inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._inside.load_cert_chain(home / "server.crt", home / "server.key")
        self._outside = ssl.create_default_context(cafile=home / "ca.crt")
        self.instead = {}
        self.swallow = {}  # path -> how many answers of the server's are not passed on
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
                rule = self.instead.get(path, [0, 0])
                if rule[1] > 0:
                    rule[1] -= 1
                    told = f"HTTP/1.1 {rule[0]} no\r\ncontent-length: 0\r\n\r\n"
                    writer.write(told.encode())
                    await writer.drain()
                    continue
                back.write(head + body)
                await back.drain()
                answer = await _head(there)
                answer += await there.readexactly(_length(answer))
                if self.swallow.get(path, 0) > 0:
                    self.swallow[path] -= 1
                    self.cut += 1
                    return
                writer.write(answer)
                await writer.drain()


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
