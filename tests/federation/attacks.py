"""A hospital under attack, and what a hostile server may send it."""

import json
import zipfile
from dataclasses import replace
from io import BytesIO

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord
from flwr.supercore.task_identity import TaskIdentity

import client.app
from tests.federation.toys import (
    ToySite,
    config,
    prepare,
    raw,
    rewritten,
    toys,
)
from vgmedgen.config.ranges import digest_of
from vgmedgen.site.config import Policy
from vgmedgen.trust.journal import Journal
from vgmedgen.trust.signing import SigningKey

KEY, STRANGER = SigningKey.make(), SigningKey.make()
LONGEST = 400  # bytes of an error reply: a code and Flower's framing


def announced(tmp_path, monkeypatch):
    """A run that the coordinator prepared, in a process that may write its messages."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    asked = config(align_rounds=2, generate_rounds=3)
    return prepare(tmp_path / "run", toys(), asked, key=KEY)


class Hospital:
    """A site that trusts one coordinator, and what came of every message to it."""

    def __init__(self, **rules):
        known = Policy(coordinators=[KEY.public], runs=["toy-*"])
        self.site = ToySite("alpha", policy=replace(known, **rules))
        self._app = client.app.build(lambda context: self.site)

    def ask(self, message):
        return self._app(message, None)

    def answered(self, message):
        reply = self.ask(message)
        assert not reply.has_error(), reply.error
        return reply

    def refuses(self, message, code):
        """Nothing trains, nothing but the code leaves, and the audit log says so."""
        site = self.site
        before = len(site.orders), len(site.releases), len(site.rehearsed)
        reply = self.ask(message)
        assert reply.has_error()
        assert reply.error == Error(code=100, reason=code)
        assert not reply.has_content()
        sent = raw(reply)
        assert code.encode() in sent
        assert len(sent) < LONGEST
        assert site.name.encode() not in sent
        assert (len(site.orders), len(site.releases), len(site.rehearsed)) == before
        journal = Journal(site.folder / "audit.jsonl")
        assert journal.verify().count == len(journal.entries())
        arrived, left = journal.entries()[-2:]
        assert (arrived["event"], left["event"]) == ("in", "out")
        assert (left["decision"], left["code"]) == ("refused", code)
        return left


def _word(key=KEY, **words):
    return lambda message: rewritten(message, key, **words)


def _plan(key=KEY, **values):
    """Another plan, whose digest is right whatever it says."""

    def how(message):
        told = json.loads(message.content["order"]["plan"])
        for name, value in values.items():
            section, _, field = name.partition("__")
            if field:
                told[section][field] = value
            else:
                told[section] = value
        words = {"plan": json.dumps(told), "plan-digest": digest_of(told)}
        return rewritten(message, key, **words)

    return how


def _plan_alone(message):
    told = json.loads(message.content["order"]["plan"])
    return rewritten(message, None, plan=json.dumps({**told, "seed": 99}))


def _weights(change):
    def how(message):
        record = message.content["weights"]
        message.content["weights"] = ArrayRecord(change(dict(record)))
        return message

    return how


def _values(change):
    def how(arrays):
        flat = arrays["mapper"].numpy().copy()
        return {**arrays, "mapper": Array(change(flat))}

    return _weights(how)


def _set(value):
    def change(flat):
        flat[3] = value
        return flat

    return _values(change)


def _without_weights(message):
    del message.content["weights"]
    return message


def _more(name, record):
    def how(message):
        message.content[name] = record
        return message

    return how


def _kind(told):
    def how(message):
        message.metadata.message_type = told
        return message

    return how


def _rogue(message):
    words = {**message.content["order"], "signature": "0" * 128}
    message.content["order"] = ConfigRecord(words)
    return message


def _of_another_run(message):
    words = dict(message.content["order"])
    other = rewritten(message, KEY, run="toy-2").content["order"]["signature"]
    message.content["order"] = ConfigRecord({**words, "signature": other})
    return message


ATTACKS = {
    "another base": ("VG15", _word(base="0" * 64)),
    "another base, unsigned": ("VG70", _word(None, base="0" * 64)),
    "another schema": ("VG30", _word(exchange="0" * 64)),
    "another plan digest": ("VG30", _word(**{"plan-digest": "0" * 64})),
    "another protocol": ("VG31", _word(protocol="1")),
    "a word too many": ("VG30", _word(upload="everything")),
    "a word without form": ("VG30", _word(None, stage="upload")),
    "a key that no plan has": ("VG10", _plan(upload=True)),
    "a key that no part of a plan has": ("VG10", _plan(align__upload=True)),
    "a plan that is no plan": ("VG10", _word(plan="{]}")),
    "a learning rate that is not one": ("VG10", _plan(align__mapper_rate=float("nan"))),
    "an absurd learning rate": ("VG40", _plan(generate__learning_rate=1e6)),
    "an absurd number of steps": ("VG40", _plan(align__mapper_steps=10**12)),
    "an absurd number of rounds": ("VG40", _plan(generate_rounds=9_999)),
    "nobody's run": ("VG40", _word(None, coordinator="", signature="")),
    "a stranger's run": ("VG40", _word(STRANGER)),
    "a stranger's signature": (
        "VG70",
        lambda m: rewritten(rewritten(m, STRANGER), coordinator=KEY.public),
    ),
    "no signature": ("VG70", _word(None, signature="")),
    "a made-up signature": ("VG70", _rogue),
    "another run's signature": ("VG70", _of_another_run),
    "a changed plan, signed before": ("VG70", _plan(None, seed=99)),
    "a changed plan under the old digest": ("VG30", _plan_alone),
    "a run that is not allowed": ("VG40", _word(run="other-1")),
    "a run that is no file name": ("VG30", _word(run="toy-..")),
    "tensors of another group": (
        "VG30",
        _weights(lambda a: {"mapper": a["mapper"], "visual_prior": a["lora"]}),
    ),
    "tensors too many": ("VG30", _weights(lambda a: {**a, "prior": a["lora"]})),
    "tensors missing": ("VG30", _weights(lambda a: {"mapper": a["mapper"]})),
    "no tensors": ("VG30", _without_weights),
    "a shorter tensor": ("VG30", _values(lambda flat: flat[:-1])),
    "another shape": ("VG30", _values(lambda flat: flat.reshape(-1, 1))),
    "another type": ("VG30", _values(lambda flat: flat.astype(np.float32))),
    "not a number": ("VG30", _set(np.nan)),
    "infinity": ("VG30", _set(-np.inf)),
    "a huge value": ("VG30", _set(6e4)),
    "a record too many": ("VG30", _more("extra", ConfigRecord({"x": "y"}))),
    "numbers": ("VG30", _more("numbers", MetricRecord({"x": 1}))),
    "a query that there is not": ("VG30", _kind("query.patients")),
    "a training that there is not": ("VG30", _kind("train.everything")),
    "Flower's own query": ("VG30", _kind("query")),
    "Flower's old kind": ("VG30", _kind("get_parameters")),
    "Flower's reconnect": ("VG30", _kind("reconnect")),
    "round 0": ("VG30", _word(round="0")),
    "a round after the last": ("VG30", _word(round="6", stage="generate", turn="4")),
    "another stage": ("VG30", _word(stage="generate")),
    "another turn": ("VG30", _word(turn="2")),
}


ON_SIGNATURES = {
    "another base, unsigned",
    "nobody's run",
    "a stranger's run",
    "a stranger's signature",
    "no signature",
    "a made-up signature",
    "another run's signature",
    "a changed plan, signed before",
}


def malicious_bundle(marker):
    """A bundle whose client app leaves a mark when anybody imports it."""
    from server.flower import bundle

    content = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(bundle())) as clean,
        zipfile.ZipFile(content, "w") as out,
    ):
        out.writestr("pyproject.toml", clean.read("pyproject.toml"))
        for path in ("client/__init__.py", "client/app.py", "vgmedgen/__init__.py"):
            out.writestr(path, f"open({str(marker)!r}, 'a').write(__name__)\n")
    return content.getvalue()
