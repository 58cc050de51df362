"""The rounds of a run: ask, check, merge, keep, and go on from where a run stopped.

Flower's own strategies always count rounds from 1, average NaN and wait without end; so
the loop is ours, and of Flower only messages and the grid are used.
"""

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict

from server import marks, place, runs
from server.membership import REMOVED, Membership
from server.merging import merged
from server.orders import Orders, round_words
from server.post import Post
from server.registry import Registry, RoundRecord
from server.replies import LATE, Accepted, Expected, code_of, read
from server.roster import Roster
from server.roundline import line
from server.weights import Weights
from server.witness import Witness
from vgmedgen.errors import ExchangeError, VGMedGenError
from vgmedgen.exchange.wire import Kind, size

log = logging.getLogger(__name__)


@dataclass
class Answers:
    """What came of one question to all sites; keys are site names."""

    accepted: dict[str, Accepted] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    sent: int = 0  # bytes to each site

    @property
    def received(self) -> dict[str, int]:
        """Bytes of every accepted reply."""
        return {name: reply.size for name, reply in self.accepted.items()}


class Strategy:
    """One run, from its last complete round to its last."""

    def __init__(self, post: Post, orders: Orders, registry: Registry) -> None:
        self._post = post
        self._orders = orders
        self._launch = launch = orders.launch
        self._registry = registry
        # a simulation has no coordinator to answer for it, and keeps no audit log
        audit = runs.state_of(launch.folder) / place.AUDIT if launch.nodes else None
        self._witness = Witness(audit, launch.run)
        self._roster = Roster(post, orders, self._witness)
        self._membership = Membership(launch)

    def run(self) -> Weights:
        """Play every round that is not yet complete.

        Returns:
            The weights after the last round, float32.

        Raises:
            StateError: if state cannot be written, or too few sites are there.
        """
        launch, registry = self._launch, self._registry
        done = registry.last_complete()
        if done:
            log.info("going on after round %d of run %s", done, launch.run)
        weights: Weights = registry.weights(done)
        before: list[str] = registry.rounds()[-1]["sites"] if done else []
        for number in range(done + 1, launch.config.federation.rounds + 1):
            weights = self.play(number, weights, before=before)
            before = []
        return weights

    def play(
        self, number: int, weights: Weights, *, before: Collection[str] = ()
    ) -> Weights:
        """One round: its outcome is on disk when this returns.

        `before` names the sites of the last round, where the run is taken up again.

        A site that errs, is late or sends anything but the schema's is left out under a
        code. With fewer than `min_sites` left the round does not count, weights stay.
        """
        federation = self._launch.config.federation
        started = time.monotonic()
        stage = federation.stage(number)
        sites = self._roster.gather(first=number == 1, before=before)
        content = self._orders.order(Kind.TRAIN, number, weights)
        train = self._ask(Kind.TRAIN, number, sites, content)
        counted = len(train.accepted) >= federation.min_sites
        bounded: dict[str, float] = {}
        if counted:
            try:
                weights, bounded = merged(self._launch, number, weights, train.accepted)
            except ExchangeError as error:
                log.warning("round %d: the updates do not merge: %s", number, error)
                counted = False
        heldout = Answers()
        # under DP no site tells its held-out loss, so none is asked
        private = self._launch.config.privacy.enabled
        if stage == "generate" and federation.evaluate and not private:
            content = self._orders.order(Kind.EVALUATE, number, weights)
            heldout = self._ask(Kind.EVALUATE, number, sites, content)
        record = RoundRecord(
            number=number,
            stage=stage,
            counted=counted,
            sites=sorted(train.accepted),
            left_out=dict(
                sorted((train.left_out | self._roster.absent(sites)).items())
            ),
            seconds=time.monotonic() - started,
            units={name: reply.units for name, reply in train.accepted.items()},
            bounded=dict(sorted(bounded.items())),
            loss=_losses(train.accepted),
            epsilon={
                name: reply.numbers["epsilon-spent"]
                for name, reply in train.accepted.items()
            },
            heldout_loss=_losses(heldout.accepted),
            heldout_units={
                name: reply.units for name, reply in heldout.accepted.items()
            },
            heldout_left_out=dict(sorted(heldout.left_out.items())),
            bytes_to=dict.fromkeys(sites, train.sent + heldout.sent),
            bytes_from=_sums(train.received, heldout.received),
        )
        self._registry.write(record, weights)
        log.info("%s", line(record, self._launch.config.privacy))
        return weights

    def install(
        self, manifest: str, signature: str, weights: Weights
    ) -> dict[str, str]:
        """Send the release to every site that is there.

        Args:
            manifest: of the release, JSON.
            signature: of the release, JSON; empty in a simulation.
            weights: its tensors, as they arrive.

        Returns:
            Site -> digest of the release it installed, or the code of why it did not.
        """
        number = self._launch.config.federation.rounds
        sites = self._roster.gather(first=False)
        content = self._orders.order(Kind.INSTALL, number, weights, manifest, signature)
        answers = self._ask(Kind.INSTALL, number, sites, content)
        installed = {n: reply.words["release"] for n, reply in answers.accepted.items()}
        for name, code in sorted(answers.left_out.items()):
            log.warning("%s did not install the release (%s)", name, code)
        log.info("%d of %d sites installed the release", len(installed), len(sites))
        return dict(sorted((installed | answers.left_out).items()))

    def _ask(
        self, kind: Kind, number: int, sites: Mapping[str, int], content: RecordDict
    ) -> Answers:
        federation = self._launch.config.federation
        self._witness.sent(kind, number, sites, content)
        replies = self._post.ask(
            kind,
            dict.fromkeys(sites.values(), content),
            timeout_s=federation.round_timeout_s,
            return_s=federation.return_s,
            group=str(number),
            gone=lambda: [sites[n] for n in self._membership.removed() if n in sites],
        )
        answers = Answers(sent=size(content))
        words = round_words(self._launch, number)
        removed = self._membership.removed()
        for name, node in sites.items():
            expected = Expected(
                kind=kind, launch=self._launch, words=words | {"site": name}
            )
            reply = replies.get(node)
            # what a site sent before it was removed does not count either
            answer = REMOVED if name in removed else _judge(name, reply, expected)
            said = reply.content if reply is not None and reply.has_content() else None
            code = answer if isinstance(answer, str) else ""
            self._witness.received(kind, number, name, said, code)
            if isinstance(answer, str):
                answers.left_out[name] = answer
            else:
                answers.accepted[name] = answer
        return answers


def _judge(name: str, reply: Message | None, expected: Expected) -> Accepted | str:
    """The reply as it may be used, or the code under which its site is left out."""
    if reply is None:
        return LATE
    if reply.has_error():
        return code_of(reply.error)
    try:
        found = read(reply, expected)
        marks.follow(expected.launch, found.words)
    except VGMedGenError as error:
        log.warning("%s is left out (%s): %s", name, error.code, error)
        return error.code
    return found


def _losses(accepted: Mapping[str, Accepted]) -> dict[str, float]:
    told = {name: reply.loss for name, reply in accepted.items()}
    return {name: loss for name, loss in told.items() if loss is not None}


def _sums(*parts: Mapping[str, int]) -> dict[str, int]:
    names = sorted({name for part in parts for name in part})
    return {name: sum(part.get(name, 0) for part in parts) for name in names}
