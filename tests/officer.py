"""A site that runs have asked something of, and its commands as an officer types them."""

from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from client.approvals import Approvals
from client.cli import app
from client.request import Request
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import ApprovalError, VGMedGenError
from vgmedgen.exchange.wire import Kind

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def said(*words: object, code: int = 0, entered: str = "") -> str:
    """What a command prints; `entered` is typed at its questions."""
    result = CliRunner().invoke(app, [str(w) for w in words], input=entered)
    if isinstance(result.exception, VGMedGenError):
        raise result.exception
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def asked_of(folder, plan=None, run="demo-1", **words):
    """Let a run ask at the site of `folder`, as its node would keep it."""
    plan = plan or RunPlan()
    told = {
        "run": run,
        "plan": plan.to_json(),
        "plan-digest": plan.digest,
        "exchange": "e" * 64,
        "base": "b" * 64,
        "coordinator": "c" * 64,
        **words,
    }
    request = Request(kind=Kind.HELLO, words=told, plan=plan)
    with pytest.raises(ApprovalError):
        Approvals(folder).check(request, required=True, now=NOW)
