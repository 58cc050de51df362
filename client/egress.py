"""The egress guard: the last thing that looks at a reply before it leaves the site.

It stands around every handler and fails closed. What leaves is not the handler's reply
but a new one, made only of what was checked against the exchange schema that this site
computes; and where anything at all went wrong, an error code and nothing else, because
Flower would otherwise send the exception's text, paths and patients included.
"""

import logging
import re

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp.typing import ClientAppCallable, Mod

from client.contract import OpenSite, Site
from client.ingress import plan_of, words_of
from vgmedgen.errors import ExchangeError, VGMedGenError
from vgmedgen.exchange.merge import trained_factor
from vgmedgen.exchange.payload import pack
from vgmedgen.exchange.schema import CODE, SITE_ERROR, numbers_of
from vgmedgen.exchange.wire import UP, Kind

log = logging.getLogger(__name__)


def guard(open_site: OpenSite) -> Mod:
    """The guard of the site that `open_site` opens, as a Flower mod."""

    def egress_guard(
        message: Message, context: Context, call_next: ClientAppCallable
    ) -> Message:
        try:
            reply = call_next(message, context)
            content = checked(message, reply, open_site(context))
        # SystemExit too: a library that exits must not take its last words outside.
        except (Exception, SystemExit) as error:
            code = _code(error)
            log.exception("stopped at this site (%s); only the code leaves", code)
            return Message(Error(code=SITE_ERROR, reason=code), reply_to=message)
        return Message(content, reply_to=message)

    return egress_guard


def checked(message: Message, reply: Message, site: Site) -> RecordDict:
    """The content that may leave as the answer to `message`.

    Args:
        message: what was asked.
        reply: what the handler wants to send.
        site: whose schema and names count.

    Raises:
        ExchangeError: if the reply holds anything but what the schema lists for it.
    """
    if not reply.has_content():
        raise ExchangeError("a handler answered with an error of its own making")
    form = UP[Kind(message.metadata.message_type)]
    asked = words_of(message)
    plan = plan_of(asked)
    schema = site.schema(plan)
    words = form.read_words(reply.content)
    own = {"site": site.name, "base": site.base_digest, "exchange": schema.digest}
    for name, truth in (asked | own).items():
        if words.get(name, truth) != truth:
            raise ExchangeError(f"the reply's word '{name}' is not this site's")
    private = plan.privacy.enabled
    if private and message.metadata.message_type == Kind.EVALUATE:
        raise ExchangeError("under differential privacy no held-out loss leaves")
    leaves = RecordDict({form.record: ConfigRecord({**words})})
    if form.numbers:
        numbers = form.read_numbers(reply.content, numbers_of(private))
        if private and numbers["epsilon-spent"] <= 0:
            raise ExchangeError("a reply under differential privacy spent nothing")
        leaves[form.numbers] = MetricRecord({**numbers})
    if form.arrays:
        specs = schema.up(
            asked["stage"], trained_factor(plan.merge, int(asked["turn"]))
        )
        states = form.read_arrays(reply.content, specs)
        leaves[form.arrays] = ArrayRecord(
            {group: Array(pack(states[group], specs[group])) for group in specs}
        )
    return leaves


def _code(error: BaseException) -> str:
    code = error.code if isinstance(error, VGMedGenError) else ""
    return code if re.fullmatch(CODE, code) else VGMedGenError.code
