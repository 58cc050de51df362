"""Everything of a site that touches Flower's internals, read in 1.41.0.

A stock SuperNode unpacks and runs whatever Python the coordinator ships. Here it only
carries messages: it runs with process isolation, and the process that takes its tasks is
ours, which runs the client app that is installed at the hospital, stays warm between
rounds, and never looks into a bundle. `tests/contract/test_flower_client.py` holds each
of these seams.
"""

from client.flower.known import registered
from client.flower.supernode import run_supernode
from client.flower.tasks import Answering, run_tasks

__all__ = ["Answering", "registered", "run_supernode", "run_tasks"]
