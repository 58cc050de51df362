"""Who is there: which node is which site, and which nodes cannot take part."""

import logging

from flwr.app import Message

from server import orders
from server.launch import Launch
from server.post import Post, polls
from server.replies import Expected, code_of, read
from vgmedgen.errors import BaseError, ExchangeError, StateError
from vgmedgen.exchange.wire import Kind

log = logging.getLogger(__name__)


class Roster:
    """The nodes that said hello, by the name of their site.

    A node that is on another base bundle, or would exchange other tensors, is refused
    with a reason before it trains anything; it is asked again before every round, so
    that a hospital can mend its installation while the run goes on.
    """

    def __init__(self, post: Post, launch: Launch) -> None:
        self._post = post
        self._launch = launch
        self._names: dict[int, str] = {}
        self._refused: dict[int, str] = {}
        self._pending: dict[str, int] = {}

    def gather(self, *, first: bool) -> dict[str, int]:
        """Sites that are there, as name -> node, in the order of their names.

        Before round 1 this waits for every site that the launch expects, later only
        until there are enough; neither for longer than `federation.wait_s`.

        Raises:
            StateError: if fewer than `federation.min_sites` are there after that.
        """
        federation = self._launch.config.federation
        fewest = federation.min_sites
        wanted = max(self._launch.sites, fewest) if first else fewest
        asked: set[int] = set()
        present: dict[str, int] = {}
        nodes: list[int] = []
        for _ in polls(federation.wait_s):
            nodes = self._post.nodes()
            self._greet([node for node in nodes if node not in asked])
            asked.update(nodes)
            for node, reply in self._post.collect(self._pending).items():
                self._hear(node, reply)
            present = {self._names[node]: node for node in nodes if node in self._names}
            heard = len(set(nodes) & (self._names.keys() | self._refused.keys()))
            if len(present) >= fewest and heard >= wanted:
                break
        if len(present) < fewest:
            refused = sorted({self._refused[n] for n in nodes if n in self._refused})
            raise StateError(
                f"{len(present)} of the {fewest} sites that a round needs are there "
                f"after {federation.wait_s:g} s ({len(nodes)} nodes connected"
                f"{', refused: ' + ', '.join(refused) if refused else ''}); start the "
                "sites, then start the run again: it goes on where it stopped"
            )
        return dict(sorted(present.items()))

    def _greet(self, nodes: list[int]) -> None:
        waiting = set(self._pending.values())
        strangers = [n for n in nodes if n not in self._names and n not in waiting]
        content = orders.hello(self._launch)
        self._pending |= self._post.send(
            Kind.HELLO,
            dict.fromkeys(strangers, content),
            ttl_s=self._launch.config.federation.wait_s,
            group="hello",
        )

    def _hear(self, node: int, reply: Message) -> None:
        try:
            if reply.has_error():
                self._refuse(node, code_of(reply.error), "its reply is an error")
                return
            expected = Expected(kind=Kind.HELLO, launch=self._launch, words={})
            name = read(reply, expected).words["site"]
        except (BaseError, ExchangeError) as error:
            self._refuse(node, error.code, str(error))
            return
        online = set(self._post.nodes())
        for other, taken in list(self._names.items()):
            if taken == name and other in online:
                self._refuse(node, ExchangeError.code, f"another node is {name}")
                return
            if taken == name:
                del self._names[other]
        self._names[node] = name
        self._refused.pop(node, None)
        log.info("%s is there (node %d)", name, node)

    def _refuse(self, node: int, code: str, why: str) -> None:
        if self._refused.get(node) != code:
            log.warning("node %d cannot take part (%s): %s", node, code, why)
        self._refused[node] = code
