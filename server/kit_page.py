"""README.html of a kit: what a hospital's IT and its security officer have to know.

One page that fetches nothing, for a screen or for paper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from server import kit_guide
from server.kit_texts import address
from server.kits import CoordinatorConfig
from vgmedgen import __version__
from vgmedgen.evaluation.markup import Html, document, note, section, table, tag

_STYLE = Path(__file__).with_suffix(".css")
_FOLDER = "/srv/vgmedgen/site"

LEAVES = (
    "LoRA factors of the DiT and of the HFFM",
    "weights of the text mapper's two mapping networks",
    "three numbers: units, loss sum, epsilon spent (two, without the loss, under DP)",
    "how far this site's ledger has come: a count of rounds and a keyed code",
    "where something fails, a code such as VG20, and never an error's text",
    "of the node: the site's pseudonym, versions, digests, and how long an answer took",
)
STAYS = (
    "images, masks, captions, text embeddings, latents",
    "the visual prior, the mapper's decoder, optimiser state",
    "per-sample losses, file names, patient ids, error texts",
    "the private key of this site, its ledger and its audit log",
)


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What the page tells of one kit."""

    site: str
    config: CoordinatorConfig
    coordinator: str  # public half of the signing key
    authority: str  # sha256 fingerprint of ca.crt
    expiries: Mapping[str, datetime]  # ca, server
    digests: Mapping[str, str]  # sha256 of the kit's files
    with_key: bool  # whether the site's private key is among them


def page(kit: Kit, *, now: datetime | None = None) -> str:
    """The page."""
    made = now or datetime.now(UTC)
    return document(
        f"{kit.site}: kit for joining {kit.config.name}",
        _STYLE.read_text(encoding="utf-8"),
        tag(
            "main",
            _head(kit),
            _network(kit),
            _wall(),
            _files(kit),
            kit_guide.start(with_key=kit.with_key),
            kit_guide.cost(),
            kit_guide.daily(),
            kit_guide.trouble(kit.expiries),
            kit_guide.contacts(),
        ),
        tag(
            "footer",
            f"Made on {made:%Y-%m-%d} by vgmedgen {__version__} for site {kit.site}. This "
            "page fetches nothing and runs nothing.",
        ),
    )


def _head(kit: Kit) -> Html:
    figures = (
        (address(kit.config), "the one address that is dialled, outbound over TLS"),
        ("0", "inbound ports to open"),
        (f"{kit.expiries['server']:%Y-%m-%d}", "the server's certificate ends"),
        (f"{kit.expiries['ca']:%Y-%m-%d}", "ca.crt ends: a new kit is needed before"),
    )
    key = (
        tag(
            "p",
            tag("b", "This kit holds a private key (node.key). "),
            "It was made at the coordinator, for a pilot. Treat the folder as a password. "
            "Before patients' data are used, move node.key away and make your own as in "
            "step 3.",
            class_="warning",
        )
        if kit.with_key
        else ""
    )
    return tag(
        "header",
        tag("p", f"{kit.config.name} · kit for site", class_="over"),
        tag("h1", kit.site),
        tag(
            "p",
            "With this kit your hospital can train a text-to-image model of rare findings "
            "together with others, and no image, caption or mask ever leaves it. Your node "
            "dials out; nobody dials in. What a training run may do here is decided by "
            "your own site.yaml and by your data officer, run by run.",
            class_="lead",
        ),
        tag("ul", *(_figure(*figure) for figure in figures), class_="figures"),
        key,
    )


def _figure(value: str, meaning: str) -> Html:
    return tag("li", tag("b", value), tag("span", meaning))


def _network(kit: Kit) -> Html:
    host, port = kit.config.host, kit.config.port
    return section(
        "network",
        "For the firewall",
        table(
            "The only rule that is needed. No other host is contacted: no telemetry, no "
            "update check, no model hub.",
            ("direction", "to", "port", "protocol"),
            [("outbound", host, f"{port}/tcp", "HTTPS (TLS 1.2 or 1.3)")],
            words=(0, 1, 2, 3),
        ),
        tag(
            "ul",
            tag("li", "Inbound: nothing. The node listens on this machine alone."),
            tag(
                "li",
                "A proxy that opens TLS cannot stand between: the node trusts ca.crt of "
                f"this kit and no public authority. Let {host} pass unopened.",
            ),
            tag(
                "li",
                "The clock has to be right within a minute (NTP): messages are signed with "
                "the time, and refused when it is off.",
            ),
            tag(
                "li",
                "Both sides prove who they are: the server by its certificate, this site "
                "by its own key, and each run by the coordinator's signature.",
            ),
        ),
    )


def _wall() -> Html:
    def side(title: str, things: Sequence[str], kind: str) -> Html:
        items = tag("ul", *(tag("li", thing) for thing in things))
        return tag("div", tag("h3", title), items, class_=kind)

    return section(
        "wall",
        "What leaves, and what never does",
        tag(
            "div",
            side("Leaves, once per round", LEAVES, "leaves"),
            side("Never leaves", STAYS, "never"),
            class_="wall",
        ),
        note(
            "The list is built here, from your own copy of the base bundle; the last thing "
            "before the wire checks every message against it. Program code that the "
            "coordinator's server might send is never unpacked and never run. With ",
            tag("code", "dry_run: true"),
            " in site.yaml the node shows what would leave, and sends nothing.",
        ),
    )


def _files(kit: Kit) -> Html:
    meanings = {
        "ca.crt": "the authority that the server's certificate chains to",
        "coordinator.pub": "public key that signs runs and releases",
        "site.yaml": "your data and your limits; changes when you fill it in",
        "node.pub": "public half of this site's key",
    }
    rows = [
        (name, meanings[name], _halves(digest)) for name, digest in kit.digests.items()
    ]
    checks = (
        ("ca.crt, fingerprint", kit.authority),
        ("coordinator.pub", kit.coordinator),
        ("base bundle, digest", kit.config.base_digest),
    )
    return section(
        "files",
        "Is this kit genuine?",
        tag(
            "p",
            "Ring the coordinator, at a number that did not come with this kit, and have "
            "these three read to you. If one differs, do not install anything.",
        ),
        table(
            "To compare by telephone",
            ("what", "value"),
            [(name, _halves(value)) for name, value in checks],
            words=(0, 1),
        ),
        table(
            "Files of this kit as it was made",
            ("file", "what it is", "sha256"),
            rows,
            words=(0, 1, 2),
        ),
        note(
            "On your machine: ",
            tag("code", "openssl x509 -in ca.crt -noout -fingerprint -sha256"),
            ", ",
            tag("code", "cat coordinator.pub"),
            ", ",
            tag("code", "sha256sum *"),
            ".",
        ),
    )


def _halves(value: str) -> Html:
    """A long hexadecimal value that breaks in its middle where it must."""
    middle = (len(value) + 1) // 2
    parts = (value[:middle], value[middle:])
    return tag("span", *(tag("span", part) for part in parts), class_="mono")
