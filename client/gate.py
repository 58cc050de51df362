"""What happens to a message at a hospital's wall, in this order and whatever it asks.

Its arrival is kept in the audit log. Then it must be readable, by a coordinator that is
trusted, within the site's policy, approved, and not of a round that was answered before.
Only then a handler sees it; its answer is held against the exchange schema, kept as
answered, kept in the audit log, and only then it leaves. Wherever anything at all goes
wrong an error code leaves and nothing else, because Flower would otherwise send the
exception's text, paths and patients included.
"""

import logging
import re
import time
from datetime import UTC, datetime

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod

from client import history, policy, rehearsal
from client.approvals import Approvals
from client.contract import OpenSite, Site
from client.egress import checked
from client.ingress import (
    check_round,
    kind_of,
    known_of,
    order_of,
    plan_of,
    words_of,
)
from client.policy import History
from client.request import Request
from client.runfiles import AUDIT
from client.turns import Turns
from vgmedgen.codes import CODES
from vgmedgen.errors import (
    ApprovalError,
    DryRunError,
    NotNowError,
    PolicyError,
    StateError,
    VersionError,
    VGMedGenError,
)
from vgmedgen.exchange.schema import CODE, SITE_ERROR
from vgmedgen.exchange.wire import Kind, fingerprint, size, to_sign
from vgmedgen.trust import warrant
from vgmedgen.trust.journal import Journal

log = logging.getLogger(__name__)


def guard(open_site: OpenSite) -> Mod:
    """The gate of the site that `open_site` opens, as a Flower mod."""

    def gate(
        message: Message, context: Context, call_next: ClientAppCallable
    ) -> Message:
        passage = Passage()
        try:
            site = open_site(context)
            digest = passage.enter(message, site)
            request = _readable(message, digest, site)
            content = _answered(message, context, call_next, request, site, passage)
            passage.leave(content)
        # SystemExit too: a library that exits must not take its last words outside.
        except (Exception, SystemExit) as error:  # noqa: BLE001 - logged by `refuse`
            code = passage.refuse(error)
            return Message(Error(code=SITE_ERROR, reason=code), reply_to=message)
        return Message(content, reply_to=message)

    return gate


class Passage:
    """One message from its arrival to its answer, as the audit log tells it."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._journal: Journal | None = None
        self._facts: dict[str, str | int] = {}
        self.repeated = False  # the very order was answered before
        self.denied = False  # by the data officer

    def enter(self, message: Message, site: Site) -> str:
        """Keep that a message has arrived.

        Returns:
            Digest of the message; empty where it has no content.

        Raises:
            StateError: if the log cannot be written; nothing may happen then.
        """
        self._journal = Journal(site.folder / AUDIT)
        known = known_of(message)
        named = ("kind", "run", "round", "turn", "stage")
        self._facts = {name: known[name] for name in named if name in known}
        self._journal.add("in", **known)
        return str(known.get("digest", ""))

    def leave(self, content: RecordDict) -> None:
        """Keep that an answer leaves.

        Raises:
            StateError: if the log cannot be written; the answer must not leave then.
        """
        self._add(
            decision="sent",
            digest=fingerprint(content),
            bytes=size(content),
            why="repeated" if self.repeated else "",
        )

    def refuse(self, error: BaseException) -> str:
        """Keep that a message was refused; returns the code that leaves instead."""
        code = error.code if isinstance(error, VGMedGenError) else ""
        if not re.fullmatch(CODE, code):
            code = VGMedGenError.code
        # the text of these names no file and no patient
        if isinstance(error, PolicyError | VersionError):
            log.warning("refused (%s): %s", code, error)
        else:
            log.error(
                "stopped at this site (%s); only the code leaves", code, exc_info=error
            )
        decision, why = "refused", _why(error, code)
        if isinstance(error, DryRunError):
            decision = "dry-run"
        elif isinstance(error, ApprovalError):
            decision = "held"
        elif self.denied:
            why = "denied"
        try:
            self._add(decision=decision, code=code, why=why, bytes=0)
        except (Exception, SystemExit):
            log.exception("the audit log cannot be written")
            return StateError.code
        return code

    def _add(self, **facts: str | int) -> None:
        if self._journal is not None:
            seconds = round(time.monotonic() - self._began, 3)
            self._journal.add("out", seconds=seconds, **self._facts, **facts)


def _why(error: BaseException, code: str) -> str:
    """The word of an audit log for a refusal: the error's own, else its code's."""
    own = error.why if isinstance(error, NotNowError) else ""
    return own or CODES.get(code, CODES[VGMedGenError.code]).why


def _readable(message: Message, digest: str, site: Site) -> Request:
    """What the message asks, of a coordinator that this site trusts."""
    kind, words = kind_of(message), words_of(message)
    warrant.check(
        words[warrant.COORDINATOR],
        words[warrant.SIGNATURE],
        to_sign(kind, message.content),
        site.policy.coordinators,
    )
    request = Request(kind=kind, words=words, plan=plan_of(words), digest=digest)
    if kind is not Kind.HELLO:
        check_round(request)
    return request


def _answered(
    message: Message,
    context: Context,
    call_next: ClientAppCallable,
    request: Request,
    site: Site,
    passage: Passage,
) -> RecordDict:
    """The content that may leave; raises whatever stands against it."""
    rules, now = site.policy, datetime.now(UTC).astimezone()
    turns, approvals = Turns(site.folder), Approvals(site.folder)
    policy.check(rules, site.privacy, request, _history(request, site, turns, now), now)
    passage.denied = approvals.of(request.run).denied
    approvals.check(request, required=rules.approval == "required", now=now)
    # from here on the plan is one that was let in: what it asks for is built
    order = None if request.kind is Kind.HELLO else order_of(message, site)
    if request.kind is Kind.TRAIN:
        history.check(site.folder, site.booked)
    if order is not None:
        passage.repeated = turns.check(request)
        turns.begin(request, now.date())
    if order is not None and rules.dry_run:
        if request.kind is Kind.TRAIN:
            rehearsal.show(message, request, order, site, now)
        raise DryRunError(
            f"run {request.run} gets nothing of round {request.number}: policy.dry_run is "
            f"true; what would have left is in {site.folder / rehearsal.FOLDER}"
        )
    content = checked(message, call_next(message, context), site)
    if order is not None:
        _still_allowed(request, site, approvals, now, passage)
        turns.record(request)
    return content


def _still_allowed(
    request: Request, site: Site, approvals: Approvals, now: datetime, passage: Passage
) -> None:
    """A round can last for hours: what was forbidden meanwhile does not leave."""
    rules = site.policy
    before = History(units=max(site.policy.min_units, 1), repeated=True)
    policy.check(rules, site.privacy, request, before, now)
    passage.denied = approvals.of(request.run).denied
    approvals.check(request, required=rules.approval == "required", now=now)
    if rules.dry_run:
        raise DryRunError(
            f"policy.dry_run was set while round {request.number} of {request.run} was "
            "trained; its answer stays here"
        )


def _history(request: Request, site: Site, turns: Turns, now: datetime) -> History:
    least, trains = site.policy.min_units, request.kind is Kind.TRAIN
    return History(
        # training itself refuses a site without units: only a higher limit than one is
        # worth reading the data for
        units=site.units if least > 1 else least,
        today=turns.of_day(now) if trains else frozenset(),
        repeated=trains and turns.repeats(request),
    )
