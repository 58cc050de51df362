"""The Flower client app of a site: one handler per kind of message."""

import json
from collections.abc import Mapping

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client import answers
from client.contract import OpenSite, Site
from client.gate import guard
from client.ingress import order_of, plan_of, words_of
from client.runfiles import AUDIT
from vgmedgen.config.ranges import digest_of
from vgmedgen.errors import ReleaseError, TrustError
from vgmedgen.release.fitness import is_held_back
from vgmedgen.release.signature import Signature, check
from vgmedgen.site.config import Policy
from vgmedgen.trust.journal import Journal
from vgmedgen.trust.warrant import COORDINATOR

RELEASES = "releases"  # in a site's folder


class GuardedApp(ClientApp):
    """A client app whose gate stands around everything, Flower's own answers included.

    Flower runs the mods of an app only around handlers that there are: to a message of
    an unknown kind it answers itself, with the text of an exception.
    """

    def __init__(self, open_site: OpenSite) -> None:
        super().__init__()
        self._gate = guard(open_site)

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message, or refuse it under a code."""
        return self._gate(message, context, super().__call__)


def build(open_site: OpenSite) -> ClientApp:
    """The client app of the site that `open_site` opens.

    Args:
        open_site: called for every message with Flower's context; must look only at
            what the node's operator set, never at anything that the server sent.
    """
    app = GuardedApp(open_site)

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        """Say who is here, on which base, and what it could exchange."""
        words = words_of(message)
        return answers.present(
            message, open_site(context), words["run"], plan_of(words)
        )

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Train one round."""
        site = open_site(context)
        order = order_of(message, site)
        return answers.trained(message, site, order, site.train(order))

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        """Held-out loss of the order's weights."""
        site = open_site(context)
        order = order_of(message, site)
        return answers.evaluated(message, site, order, site.evaluate(order))

    @app.query("install")
    def install(message: Message, context: Context) -> Message:
        """Install a release for synthesis on site."""
        site = open_site(context)
        order, words = order_of(message, site), words_of(message)
        signature = signature_of(words, site.policy)
        digest = site.install(order, words["manifest"], signature)
        facts = {
            "run": order.run,
            "digest": digest_of(json.loads(words["manifest"])),
            "coordinator": words[COORDINATOR],
        }
        journal = Journal(site.folder / AUDIT)
        journal.add("install", **facts, decision="accepted")
        if is_held_back(site.folder / RELEASES / digest[:16]):
            # for the hospital's eyes: the answer is the same, whatever was found
            journal.add("use", **facts, decision="refused", why="worse")
        return answers.installed(message, site, order, digest)

    return app


def signature_of(words: Mapping[str, str], policy: Policy) -> Signature | None:
    """The signature of a release, by the coordinator who sent it; None where nobody signs.

    The release outlives its message, so it needs a signature of its own.

    Raises:
        PolicyError: if it is not signed, or by a coordinator that is not trusted.
        ReleaseError: if it is no signature, or another release's.
        TrustError: if it is not by the coordinator of the message, or wrong.
    """
    coordinator, said = words[COORDINATOR], words["release-signature"]
    found = Signature.from_json(said) if said else None
    if found is None and not coordinator:
        return None  # a simulation, whose messages are not signed either
    if found is not None and found.coordinator != coordinator:
        raise TrustError(
            f"the release is signed by {found.coordinator[:16]}, its message by "
            f"{coordinator[:16] or 'nobody'}; nothing was installed"
        )
    trusted = [
        key for key in policy.coordinators or [coordinator] if key == coordinator
    ]
    try:
        manifest = json.loads(words["manifest"])
    except (ValueError, RecursionError):
        raise ReleaseError(
            "the manifest of the release is not JSON; nothing was installed"
        ) from None
    check(found, manifest, trusted)
    return found


def _open_site(context: Context) -> Site:
    # Imported with the first message: the site brings torch and the models.
    from client.site import open_site  # noqa: PLC0415

    return open_site(context)


app = build(_open_site)
