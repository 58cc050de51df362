"""A SuperLink and a SuperNode as our own commands start them, without models or data.

Both are real processes; what is left out is the runner and the runs. A test of the
connection between them needs no more, and starts in seconds.
"""

import os
import signal
import subprocess
import sys
import time

from client.node import CONFIRMED, PORT, SECRET
from server import flower, place
from server.kits import Kits
from server.process import ADMIN, LISTEN
from tests.federation.processes import UP_S, free_ports, wait
from tests.provisioned import made, seal_base
from vgmedgen.errors import VGMedGenError
from vgmedgen.trust import nodekeys
from vgmedgen.trust.files import write_secret

QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


AHEAD = """
import runpy, sys
from datetime import timedelta
from flwr.supernode import node_auth_http_interceptor as signing
right, ahead = signing.now, timedelta(seconds=float(sys.argv[1]))
signing.now = lambda: right() + ahead
del sys.argv[:2]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class Part:
    """One of our processes, its output in a file."""

    def __init__(self, log, words, env):
        self._log, self._words, self._env = log, words, {**os.environ, **QUIET, **env}
        self.process = None

    @property
    def text(self):
        """What it said, over all its starts."""
        return self._log.read_text() if self._log.is_file() else ""

    def start(self, ahead=0.0):
        """Start it, by a clock that is `ahead` seconds ahead where it signs the time."""
        begin = ("-c", AHEAD, str(ahead)) if ahead else ("-m",)
        with self._log.open("a") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *begin, *map(str, self._words)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=self._env,
            )

    @property
    def running(self):
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None

    def kill(self, number=signal.SIGKILL):
        """End it by a signal."""
        if self.running:
            self.process.send_signal(number)
            self.process.wait(60)


class Carried:
    """A coordinator's SuperLink on its port, and the folder of a hospital's node."""

    def __init__(self, folder, address=None):
        seal_base(folder / "base")
        self.site = folder / "site"
        (self.site / "node").mkdir(parents=True)
        public = nodekeys.make(self.site / "node.key")
        self.port = free_ports()
        made(folder / "base", host="localhost", port=self.port)
        self.kits = Kits.open(folder / "kits")
        self.home = self.kits.home
        place.prepare(self.kits.state)
        self.kits.register("hospital-a", public)
        (self.site / "ca.crt").write_bytes((self.home / "ca.crt").read_bytes())
        write_secret(self.site / "node" / SECRET, os.urandom(32).hex().encode())
        env = {
            LISTEN: f"127.0.0.1:{self.port}",
            ADMIN: str(self.port + 1),
            "FLWR_HOME": str(folder / "flower"),
        }
        words = ("server.process", "superlink", self.kits.folder.resolve())
        self.link = Part(folder / "link.log", words, env)
        env = {PORT: str(self.port + 2), "FLWR_HOME": str(folder / "flower-node")}
        words = ("client.node", "supernode", self.site)
        self.node = Part(folder / "node.log", words, env)
        self.dial(address or f"localhost:{self.port}")
        self.control = flower.Control(self.port + 1, place.token(self.kits.state))

    def dial(self, address):
        """Have the node go to `address`, from its next start on."""
        (self.site / "site.yaml").write_text(
            f'name: hospital-a\nbase: "."\n'
            f"sources: [{{dataset: table, root: x.csv}}]\n"
            f'coordinator: {{address: "{address}"}}\n'
        )

    def start_link(self):
        """Start the SuperLink, and wait until it knows the site's key."""
        self.link.start()
        wait(self._registered, what="the SuperLink")

    def _registered(self):
        assert self.link.running, self.link.text[-2000:]
        try:
            if not self.control.nodes():
                for site, key in self.kits.nodes().items():
                    self.control.register(site, key)
            return self.control.nodes()
        except VGMedGenError:
            return None

    @property
    def confirmed(self):
        """How many heartbeats the node says were confirmed."""
        return self.node.text.count(CONFIRMED)

    def wait_confirmed(self, more=1, seconds=UP_S):
        """Wait until so many more heartbeats are confirmed."""
        wanted = self.confirmed + more
        begun = time.monotonic()
        wait(lambda: self.confirmed >= wanted, seconds, what="a confirmed heartbeat")
        return time.monotonic() - begun

    def stop(self):
        """Stop both."""
        for part in (self.node, self.link):
            part.kill(signal.SIGTERM)
            part.kill()
        self.control.close()
