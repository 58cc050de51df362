"""Everything of the coordinator that touches Flower's internals, read in 1.41.0.

Flower is not forked: its own app is served behind our gates, its own clients are used,
and the loop that plays a run's server app is ours, so that no bundle is ever unpacked
and nothing is installed while a hospital waits. `tests/contract/test_flower_server.py`
holds each of these seams, and that no other module reaches into Flower.
"""

from server.flower.bundle import RUN_KEY, bundle
from server.flower.clocks import Skews
from server.flower.control import Control, NodeSeen
from server.flower.link import Link, in_background, quiet, serve
from server.flower.player import Task, acquire, play

__all__ = [
    "RUN_KEY",
    "Control",
    "Link",
    "NodeSeen",
    "Skews",
    "Task",
    "acquire",
    "bundle",
    "in_background",
    "play",
    "quiet",
    "serve",
]
