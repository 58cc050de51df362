"""Who is there: which node is which site, and which nodes cannot take part."""

import json
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Message

from server import marks, place, runs, waiting
from server.membership import REMOVED, Membership
from server.orders import Orders
from server.post import Node, Post, polls
from server.replies import LATE, OFFLINE, Expected, code_of, read
from server.waiting import Waiting
from server.witness import Witness
from vgmedgen import __version__
from vgmedgen.errors import (
    BaseError,
    ExchangeError,
    StateError,
    TooFewSitesError,
    VersionError,
)
from vgmedgen.exchange.schema import PROTOCOL
from vgmedgen.exchange.wire import Kind
from vgmedgen.files import write_text

log = logging.getLogger(__name__)

FIRST_AGAIN_S = 10.0  # after which a refused node is asked again, while a round waits
LONGEST_AGAIN_S = 300.0
HEAR_S = 6.0  # a round that could begin waits this long for answers to a hello


@dataclass
class _Refusal:
    code: str
    asked: float  # monotonic
    pause: float = FIRST_AGAIN_S


@dataclass
class _Pending:
    """Hellos under way."""

    nodes: dict[str, int] = field(default_factory=dict)  # message id -> node
    sent: dict[int, float] = field(default_factory=dict)  # node -> seconds since 1970


class Roster:
    """The nodes that said hello, by the name of their site.

    A node that is on another base bundle, would exchange other tensors, or whose
    hospital does not let the run in, is refused with a code before it trains anything;
    it is asked again before every round and while one waits, so that a hospital can
    mend its installation, or approve the run, while it goes on.
    """

    def __init__(self, post: Post, orders: Orders, witness: Witness) -> None:
        self._post = post
        self._orders = orders
        self._launch = launch = orders.launch
        self._witness = witness
        self._sites = {key: site for site, key in launch.nodes.items()}
        self._names: dict[int, str] = {}
        self._refused: dict[int, _Refusal] = {}
        self._pending = _Pending()
        self._owners: dict[int, str] = {}  # node -> site by its key, in deployment
        self._membership = Membership(launch)
        self._told: tuple[dict[str, str], int] | None = None  # what is kept of a wait

    def gather(self, *, first: bool, before: Collection[str] = ()) -> dict[str, int]:
        """Sites that are there, as name -> node, in the order of their names.

        Args:
            first: whether round 1 is next, which waits for every site of the launch.
            before: sites that a run which is taken up again had in its last round, and
                waits for. Whom it waits for, and until when: see `server.waiting`.

        Raises:
            TooFewSitesError: if fewer than `federation.min_sites` are there in time.
        """
        federation = self._launch.config.federation
        fewest = federation.min_sites
        patience = federation.wait_s
        if not first:
            patience = min(federation.return_s, federation.wait_s)
        for refusal in self._refused.values():
            refusal.asked = -LONGEST_AGAIN_S  # before every round everybody is asked
        present: dict[str, int] = {}
        nodes: list[Node] = []
        started = time.monotonic()
        try:
            for _ in polls(federation.wait_s):
                nodes = self._known(self._post.nodes())
                self._greet(nodes)
                for node, reply in self._post.collect(self._pending.nodes).items():
                    self._hear(node, reply)
                online = {node.id for node in nodes}
                present = {self._names[n]: n for n in online if n in self._names}
                waited = time.monotonic() - started
                missing = {}
                if waited < patience:
                    missing = self._missing(online, present, first=first, before=before)
                enough = len(present) >= fewest and not missing
                if enough and not (self._owners and self._asking(online, started)):
                    break
                left = (patience if missing else federation.wait_s) - waited
                self._tell(missing, len(present), left)
        finally:
            self._tell({}, fewest, 0)
        if len(present) < fewest:
            codes = sorted({r.code for r in self._refused.values()})
            raise TooFewSitesError(
                f"{len(present)} of the {fewest} sites that a round needs are there "
                f"after {federation.wait_s:g} s ({len(nodes)} nodes connected"
                f"{', refused: ' + ', '.join(codes) if codes else ''}); start the "
                "sites, then start the run again: it goes on where it stopped"
            )
        return dict(sorted(present.items()))

    def _missing(
        self,
        online: Collection[int],
        here: Mapping[str, int],
        *,
        first: bool,
        before: Collection[str],
    ) -> dict[str, str]:
        """Sites that are waited for, and the code of why each is not in yet."""
        codes = self._codes()
        if first and not self._sites:  # a simulation: who they are is not known before
            refused = [c for c in codes.values() if c not in waiting.UNDECIDED]
            away = self._launch.sites - len(here) - len(refused)
            return {f"site {n + 1}": OFFLINE for n in range(away)}
        whom = set(self._launch.nodes if first else before) - here.keys()
        whom -= self._membership.removed()
        asked = {self._owners[node]: LATE for node in online if node in self._owners}
        reasons = {site: (asked | codes).get(site, OFFLINE) for site in sorted(whom)}
        undecided = waiting.UNDECIDED | {OFFLINE, LATE}
        return {site: code for site, code in reasons.items() if code in undecided}

    def _codes(self) -> dict[str, str]:
        """Code of every site, or node of no known site, that has refused."""
        return {
            self._owners.get(node, f"node {node}"): refusal.code
            for node, refusal in self._refused.items()
        }

    def _tell(self, missing: Mapping[str, str], here: int, left_s: float) -> None:
        """Keep whom the run waits for, where somebody may look."""
        if not self._sites:
            return
        fewest = self._launch.config.federation.min_sites
        told = (dict(missing), here)
        if told == self._told:
            return
        self._told = told
        now = None
        if missing or here < fewest:
            now = Waiting.made(missing, here=here, fewest=fewest, left_s=left_s)
        waiting.keep(self._launch.folder, now)
        if now is not None:
            log.info("run %s %s", self._launch.run, now.line)

    def _asking(self, online: set[int], started: float) -> bool:
        """Whether a node that is there may still answer, and is worth the wait."""
        waiting = online & set(self._pending.nodes.values())
        return bool(waiting) and time.monotonic() - started < HEAR_S

    def absent(self, present: Mapping[str, int]) -> dict[str, str]:
        """Sites of the launch that are not `present`, and the code of why."""
        codes = self._codes() | dict.fromkeys(self._membership.removed(), REMOVED)
        return {
            site: codes.get(site, OFFLINE)
            for site in sorted(self._launch.nodes.keys() - present.keys())
        }

    def _known(self, nodes: list[Node]) -> list[Node]:
        """Nodes that the launch knows by key; in a simulation all of them."""
        if not self._sites:
            return nodes
        gone = self._membership.removed()
        known = [n for n in nodes if n.key in self._sites]
        known = [n for n in known if self._sites[n.key] not in gone]
        self._owners |= {node.id: self._sites[node.key] for node in known}
        return known

    def _greet(self, nodes: list[Node]) -> None:
        sent = self._pending.sent
        asked = {}
        for node in nodes:
            waiting = node.id in self._pending.nodes.values()
            if waiting and node.since > sent[node.id]:
                waiting = False  # it was restarted, the question is lost
            refusal = self._refused.get(node.id)
            now = time.monotonic()
            if refusal is not None and now - refusal.asked < refusal.pause:
                continue
            if node.id not in self._names and not waiting:
                asked[node.id] = self._orders.hello()
                sent[node.id] = time.time()
                if refusal is not None:
                    refusal.asked = now
        if not asked:
            return
        for node_id, content in asked.items():
            name = self._owners.get(node_id)
            if name is not None:
                self._witness.sent(Kind.HELLO, 0, {name: node_id}, content)
        self._pending.nodes |= self._post.send(
            Kind.HELLO,
            asked,
            ttl_s=self._launch.config.federation.wait_s,
            group="hello",
        )

    def _hear(self, node: int, reply: Message) -> None:
        try:
            if reply.has_error():
                code = code_of(reply.error)
                self._refuse(node, code, self._said(node, code))
                return
            expected = Expected(kind=Kind.HELLO, launch=self._launch, words={})
            words = read(reply, expected).words
            self._check_name(node, words["site"])
            marks.follow(self._launch, words)
        except (BaseError, ExchangeError, StateError) as error:
            self._refuse(node, error.code, str(error))
            return
        name = words["site"]
        self._names[node] = name
        self._refused.pop(node, None)
        self._note(name, "", words)
        log.info("%s is there (node %d)", name, node)

    def _said(self, node: int, code: str) -> str:
        """What an error says, in a line; of a site in another version, both of them."""
        if code != VersionError.code:
            return "its reply is an error"
        told = _read(runs.state_of(self._launch.folder) / place.NODES)
        last = told.get(self._owners.get(node, ""), {}).get("version", "")
        theirs = (
            f"version {last} when it last joined" if last else "one never seen here"
        )
        return (
            f"this coordinator is version {__version__} and speaks protocol {PROTOCOL}, "
            f"which the site does not ({theirs}); install the same on both sides"
        )

    def _check_name(self, node: int, name: str) -> None:
        """Refuse a name that is another's: by its key, or because it is taken.

        Raises:
            ExchangeError: saying so.
        """
        owner = self._owners.get(node, name)
        if owner != name:
            raise ExchangeError(
                f"a node with the key of {owner} calls itself {name}; both must be the "
                "same: set the name in its site.yaml, or register its key for that site"
            )
        online = {found.id for found in self._post.nodes()}
        for other, taken in list(self._names.items()):
            if taken == name and other in online:
                raise ExchangeError(f"another node is {name}")
            if taken == name:
                del self._names[other]

    def _refuse(self, node: int, code: str, why: str) -> None:
        held = self._refused.get(node)
        if held is None or held.code != code:
            who = self._owners.get(node, f"node {node}")
            log.warning("%s cannot take part (%s): %s", who, code, why)
        pause = (
            FIRST_AGAIN_S if held is None else min(1.5 * held.pause, LONGEST_AGAIN_S)
        )
        self._refused[node] = _Refusal(code, time.monotonic(), pause)
        if node in self._owners:
            self._note(self._owners[node], code, {})

    def _note(self, site: str, code: str, words: dict[str, str]) -> None:
        """Keep what a node said of itself, for whoever asks how things stand."""
        if site not in self._launch.nodes:
            return
        self._witness.received(Kind.HELLO, 0, site, None, code)
        path = runs.state_of(self._launch.folder) / place.NODES
        told = _read(path)
        facts = {name: words[name] for name in ("base", "exchange", "version") if words}
        seen = datetime.now(UTC).isoformat(timespec="seconds")
        told[site] = told.get(site, {}) | facts | {"seen": seen, "code": code}
        write_text(path, json.dumps(told, indent=2))


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        found: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
