"""The part of a kit's page that says what to do: the first steps, every day, trouble."""

from collections.abc import Mapping
from datetime import datetime

from server.kit_texts import EPSILON, LEAST_UNITS
from vgmedgen import __version__
from vgmedgen.evaluation.markup import Html, note, section, table, tag

_FOLDER = "/srv/vgmedgen/site"


def start(*, with_key: bool) -> Html:
    """From the kit to the first run.

    Args:
        with_key: whether the kit came with a private key, for a pilot.
    """
    own = (
        "For a pilot, skip this; else move the kit's node.key away. "
        if with_key
        else ""
    )
    return section(
        "start",
        "From the kit to the first run",
        tag(
            "ol",
            _step(
                "Install",
                "On a machine with Python 3.11 or 3.12, under a user of its own, from "
                "the package that the coordinator names. Containers and systemd units "
                "lie in the sources, in configs/deploy.",
                "python3 -m venv /srv/vgmedgen/venv",
                f". /srv/vgmedgen/venv/bin/activate && pip install "
                f"vgmedgen-{__version__}-py3-none-any.whl",
            ),
            _step(
                "Put the kit in its place, and fill in site.yaml",
                "Say where the base bundle lies, and where your data lie. Read the "
                "policy: as it comes, only runs with differential privacy are served, "
                f"to epsilon {EPSILON:g} for each unit over all runs, every run waits "
                f"for approval, and nothing trains on fewer than {LEAST_UNITS} units.",
                f"mkdir -m 700 -p {_FOLDER}",
                f"cp ca.crt coordinator.pub site.yaml {'node.* ' * with_key}{_FOLDER}",
                f"cd {_FOLDER} && vgmedgen base verify /srv/vgmedgen/base",
            ),
            _step(
                "Make this site's key",
                f"{own}node.key stays here. Send node.pub to the coordinator and read "
                "its fingerprint out by telephone; until it is registered, the server "
                "refuses this site.",
                "vgmedgen-client keygen",
            ),
            _step(
                "Check",
                "One line for each thing that has to be right, and what to do where it "
                "is not. Exit code 0: all is well; 1: something is not; 4: the server "
                "cannot be reached.",
                "vgmedgen-client check",
                "vgmedgen-client policy show    # your own limits, in sentences",
            ),
            _step(
                "Start",
                "Goes on until it is told to stop; starts again what dies, and waits "
                "while the server does not answer.",
                "vgmedgen-client start",
            ),
            _step(
                "Approve a run",
                "A run waits until your data officer has seen what it asks for: stages, "
                "rounds, privacy, and every tensor with its size.",
                "vgmedgen-client runs           # what has asked",
                "vgmedgen-client approve RUN    # or: deny RUN",
            ),
            class_="steps",
        ),
    )


def cost() -> Html:
    """What differential privacy costs, which a kit asks for, and what going without."""
    rows = {
        "units": "A run needs 64 of this site that train, by default.",
        "time and memory": "A step takes 2 to 12 % longer, in the same memory.",
        "what is learnt": "Far less: on HAM10000 a run at epsilon 8 kept about a fifth of "
        "what it learnt without, at 3 a tenth, at 1 a twentieth.",
        "how often": f"Epsilons of runs add up, less than linearly, to {EPSILON:g}; then "
        "no run trains on these units again.",
        "going without": "Set privacy.epsilon: 0 and policy.dp: optional. Nothing then "
        "bounds what an update tells of a patient, and units that were trained on so can "
        "never be promised anything later.",
    }
    return section(
        "cost",
        "What differential privacy costs",
        table(
            "As it comes, site.yaml lets no run in without it. Measured on public images "
            "with the tiny preset (vgmedgen/privacy/README.md in the sources).",
            ("what", "how much"),
            [_case(what, much) for what, much in rows.items()],
            words=(0, 1),
        ),
    )


def daily() -> Html:
    """How to stop, and where to look."""
    rows = (
        ("stop", "Ctrl-C, SIGTERM or systemctl stop", "nothing is lost"),
        (
            "see what was spent",
            _code("ledger show ."),
            "over all runs, and what is left",
        ),
        ("check the ledger", _code("ledger verify ."), "whether a row was changed"),
        ("see what came and went", _code("audit show"), "every message, its decision"),
        ("check the audit log", _code("audit verify"), "whether a line was changed"),
        ("see what may happen", _code("policy show"), "limits, in plain sentences"),
        ("withdraw from a run", _code("deny RUN"), "nothing leaves for it any more"),
        ("see the installed releases", _code("models"), "run, signer, the one in use"),
        ("take the one before again", _code("models roll-back"), "which is in use"),
        ("install one that came by hand", _code("install FILE"), "its signer and date"),
    )
    return section(
        "daily",
        "Stopping, and looking",
        table(
            f"In {_FOLDER}. None of these sends anything.",
            ("to", "do", "tells"),
            rows,
            words=(0, 1, 2),
        ),
        note(
            "Note the last hash that audit verify prints elsewhere now and then: it also "
            "proves that nobody rewrote the whole log. Back the folder up as a whole; an "
            "older ledger.sqlite put back alone would forget what was spent, and is "
            "refused."
        ),
    )


def trouble(expiries: Mapping[str, datetime]) -> Html:
    """What ends when, and what can go wrong.

    Args:
        expiries: when the certificates end: ca, server.
    """
    return section(
        "trouble",
        "When something ends or goes wrong",
        table(
            "vgmedgen-client check warns a month before a certificate ends.",
            ("when", "what to do"),
            [
                _case(
                    f"before {expiries['server']:%Y-%m-%d}",
                    "The coordinator renews the server's certificate under the same "
                    "authority. Nothing to do here; if check warns, ring the coordinator.",
                ),
                _case(
                    f"before {expiries['ca']:%Y-%m-%d}",
                    "ca.crt itself ends: ask the coordinator for a new kit.",
                ),
                _case(
                    "node.key lost, or seen by others",
                    "Ring the coordinator at once. Move it away, make a new one with "
                    "keygen, send the new node.pub.",
                ),
                _case(
                    "a new coordinator key is announced",
                    "Believe no mail. Ring, compare, then change policy.coordinators "
                    "by hand.",
                ),
                _case(
                    "a line with a code, VG10 to VG75",
                    "The line itself says what was found and what to do next.",
                ),
            ],
            words=(0, 1),
        ),
    )


def contacts() -> Html:
    """A table to fill in on paper."""
    blank = tag("td", "", class_="blank")
    who = ("coordinator", "data officer of this hospital", "IT of this hospital")
    return section(
        "contacts",
        "Whom to ask",
        table(
            "To fill in by hand, not from this kit",
            ("who", "name", "telephone"),
            [(name, blank, blank) for name in who],
            words=(0, 1, 2),
        ),
    )


def _step(title: str, why: str, *commands: str) -> Html:
    return tag("li", tag("h3", title), tag("p", why), tag("pre", "\n".join(commands)))


def _case(when: str, what: str) -> tuple[str, Html]:
    return when, tag("td", what)  # a sentence may wrap, however short


def _code(verb: str) -> Html:
    return tag("td", tag("code", f"vgmedgen-client {verb}"))
