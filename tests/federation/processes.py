"""A coordinator and its hospitals as an operator runs them: our commands, real processes.

Everything is started by its own command, stopped by its own id, on ports that were free.
"""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import OmegaConf

from tests.conftest import MICRO

BIN = Path(sys.executable).parent
UP_S = 600.0  # nothing takes so long that works, on a busy machine either


def free_ports(count=3):
    """The first of `count` neighbouring ports that nobody uses."""
    for first in range(20_000 + os.getpid() % 20_000, 60_000, count):
        trials = [socket.socket() for _ in range(count)]
        try:
            for offset, trial in enumerate(trials):
                trial.bind(("127.0.0.1", first + offset))
        except OSError:
            continue
        finally:
            for trial in trials:
                trial.close()
        return first
    raise RuntimeError("no free ports")


def command(name, *words, check=True, **more):
    """Run one of our commands to its end."""
    done = subprocess.run(
        [BIN / name, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=UP_S,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **more,
    )
    if check and done.returncode:
        raise AssertionError(f"{name} {words}: {done.returncode}\n{done.stderr}")
    return done


def wait(until, seconds=UP_S, *, what="it"):
    """Poll until `until` gives something, and return that."""
    end = time.monotonic() + seconds
    while True:
        found = until()
        if found:
            return found
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)


def ask(port, request, *, secure=True, ca=None):
    """Raw HTTP: status line of the answer."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=60)
    if secure:
        context = ssl.create_default_context(cafile=ca)
        plain = context.wrap_socket(plain, server_hostname="localhost")
    with plain as stream:
        stream.sendall(request.encode())
        return stream.recv(4096).decode().split("\r\n")[0]


class Process:
    """One long-running command, its log in a file."""

    def __init__(self, log, name, *words, cwd=None, env=None):
        self.log = log
        self.begins = len(log.read_text()) if log.is_file() else 0
        self._stream = log.open("a")
        self.process = subprocess.Popen(
            [BIN / name, *map(str, words)],
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )

    @property
    def text(self):
        """What it said."""
        return self.log.read_text()

    def child(self, role):
        """Id of the process that it keeps for `role`; None while there is none."""
        pid = self.process.pid
        with suppress(OSError):
            kids = Path(f"/proc/{pid}/task/{pid}/children").read_bytes().decode()
            for kid in kids.split():
                with suppress(OSError):
                    words = Path(f"/proc/{kid}/cmdline").read_bytes().decode()
                    if role in words.split("\0"):
                        return int(kid)
        return None

    def kill(self, role=""):
        """SIGKILL to itself, or to the child with that role; whether there was one."""
        if not role:
            self.process.kill()
            self.process.wait()
            return True
        victim = self.child(role)
        if victim is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return True

    def stop(self):
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._stream.close()
        return self.process.returncode


class Deployment:
    """A kits folder with its server and nodes."""

    def __init__(self, folder, bundle, virtual):
        self.folder, self.kits = folder, folder / "kits"
        self.names = [path.name for path in virtual]
        self.virtual = {path.name: path for path in virtual}
        self.port = free_ports()
        self.server = None
        self.nodes = {}
        command(
            "vgmedgen-server",
            *("provision", "--sites", ",".join(self.names), "--host", "localhost"),
            *("--port", self.port, "--base", bundle.folder, "--out", self.kits),
            "--make-keys",
        )
        path = self.kits / "coordinator" / "coordinator.yaml"
        config = OmegaConf.load(path)
        config.listen = "127.0.0.1"
        config.admin_port, config.page_port = self.port + 1, self.port + 2
        OmegaConf.save(config, path)
        for name in self.names:
            self.fill_in(name, bundle)

    def fill_in(self, name, bundle):
        """What a hospital writes into its site.yaml."""
        old = OmegaConf.load(self.virtual[name] / "site.yaml")
        self.edit(
            name,
            base=str(bundle.folder),
            sources=old.sources,
            privacy={"epsilon": 0},  # most of what is tested trains without DP
            policy={
                "dp": "optional",
                "approval": "none",
                "min_units": 1,
                "min_heldout": 1,
                "min_batch": 1,
            },
        )

    def site(self, name):
        """A hospital's folder."""
        return self.kits / name

    def edit(self, name, **keys):
        """Change a hospital's site.yaml."""
        path = self.site(name) / "site.yaml"
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), keys), path)

    def start(self, *words):
        """Start the server and every node, and wait until all are there."""
        self.start_server(*words)
        for name in self.names:
            self.start_node(name)
        self.wait_nodes()

    def start_server(self, *words, **more):
        """Start the coordinator's server, and wait until hospitals can reach it."""
        log = self.folder / "server.log"
        words = ("start", "--kits", self.kits, *words)
        self.server = Process(log, "vgmedgen-server", *words, **more)
        before = log.read_text().count("hospitals reach")

        def up():
            assert self.server.process.poll() is None, self.server.text[-2000:]
            return self.server.text.count("hospitals reach") > before

        wait(up, what="the server")
        return self.server

    def start_node(self, name, **more):
        """Start a hospital's node, without waiting."""
        log = self.folder / f"{name}.log"
        site = self.site(name) / "site.yaml"
        node = Process(log, "vgmedgen-client", "start", "--site", site, **more)
        self.nodes[name] = node
        return node

    def restart(self, name, **keys):
        """Stop a node, change its site.yaml, and start it again."""
        self.nodes[name].stop()
        self.edit(name, **keys)
        self.start_node(name)
        self.wait_nodes(name)

    @contextmanager
    def changed(self, name, **keys):
        """A node under another site.yaml; started again with its own afterwards."""
        path = self.site(name) / "site.yaml"
        keep = path.read_text()
        self.restart(name, **keys)
        try:
            yield
        finally:
            path.write_text(keep)
            self.restart(name)

    def wait_nodes(self, *names):
        """Wait until these nodes are there, their models loaded."""
        for name in names or self.names:
            node = self.nodes[name]

            def up(node=node):
                assert node.process.poll() is None, node.text[-2000:]
                said = node.text[node.begins :]
                return "SuperNode ID" in said and "is ready" in said

            wait(up, what=name)

    def run(self, *overrides):
        """Start a run and return its id, without following it."""
        done = command(
            "vgmedgen-server",
            *("run", "--kits", self.kits, "--detach", *MICRO, *overrides),
        )
        return done.stdout.split()[1]

    def state(self, run):
        """How a run stands."""
        path = self.kits / "coordinator/state/runs" / run / "state.json"
        return json.loads(path.read_text())

    def ended(self, run, seconds=1800.0):
        """How a run ended."""

        def over():
            now = self.state(run)
            return now if now["state"] in ("finished", "failed", "stopped") else None

        return wait(over, seconds, what=f"run {run}")

    def records(self, run):
        """The record of every round."""
        folder = self.kits / "coordinator/state/runs" / run / "rounds"
        return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]

    def waits_for(self, run):
        """Sites that a run waits for, and why; None where it does not."""
        path = self.kits / "coordinator/state/runs" / run / "waiting.json"
        try:
            return json.loads(path.read_text())["sites"]
        except (OSError, ValueError):
            return None

    def last_weights(self, run):
        """The bytes of the weights after the last round."""
        folder = self.kits / "coordinator/state/runs" / run / "rounds"
        return sorted(folder.glob("*.safetensors"))[-1].read_bytes()

    def journal(self, name=None):
        """Lines of a site's audit log, or the coordinator's."""
        home = self.site(name) if name else self.kits / "coordinator/state"
        return [
            json.loads(line) for line in (home / "audit.jsonl").read_text().splitlines()
        ]

    def stop(self):
        """Stop everything that was started."""
        for node in self.nodes.values():
            node.stop()
        if self.server is not None:
            self.server.stop()


class Recorder:
    """Ends TLS in front of the server, keeps every byte in the clear, and passes it on."""

    def __init__(self, home, port):
        self.up = bytearray()  # from hospitals
        self.down = bytearray()
        self._home, self._target = home, port
        self.port = 0
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def close(self):
        """Stop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self, ready):
        asyncio.set_event_loop(self._loop)
        inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        inside.load_cert_chain(self._home / "server.crt", self._home / "server.key")
        listening = self._loop.run_until_complete(
            asyncio.start_server(self._meet, "127.0.0.1", 0, ssl=inside)
        )
        self.port = listening.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        listening.close()

    async def _meet(self, reader, writer):
        outside = ssl.create_default_context(cafile=self._home / "ca.crt")
        try:
            there, back = await asyncio.open_connection(
                "localhost", self._target, ssl=outside
            )
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            self._copy(reader, back, self.up), self._copy(there, writer, self.down)
        )

    @staticmethod
    async def _copy(reader, writer, kept):
        with suppress(OSError, ssl.SSLError):
            while part := await reader.read(65536):
                kept += part
                writer.write(part)
                await writer.drain()
        writer.close()
