"""The Flower client app of a site: one handler per kind of message."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client import answers
from client.contract import OpenSite, Site
from client.gate import guard
from client.ingress import order_of, plan_of, words_of


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
        order = order_of(message, site)
        digest = site.install(order, words_of(message)["manifest"])
        return answers.installed(message, site, order, digest)

    return app


def _open_site(context: Context) -> Site:
    # Imported with the first message: the site brings torch and the models.
    from client.site import open_site  # noqa: PLC0415

    return open_site(context)


app = build(_open_site)
