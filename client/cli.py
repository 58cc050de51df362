"""`vgmedgen-client`: what a hospital does on its own machine.

Exit 0 done, 1 refused (one line: what, where, limit, what to do, code), 2 misuse, 4 the
coordinator does not answer. Heavy imports happen inside the verbs, so that `--help` stays
fast.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from client.ledger.cli import app as ledger
from client.models.cli import app as models
from client.models.cli import install
from client.options import HERE, AsJson, By, Where, folder_of, officer
from vgmedgen.cli.shared import run_cli

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="What a hospital does on its own machine.",
)
policy = typer.Typer(no_args_is_help=True, help="What this site lets a run do.")
audit = typer.Typer(no_args_is_help=True, help="What came in and went out, in a chain.")
app.add_typer(policy, name="policy")
app.add_typer(ledger, name="ledger")
app.add_typer(audit, name="audit")
app.add_typer(models, name="models")
app.command(epilog="example: vgmedgen-client install demo-1a2b3c4d.vgrel")(install)

Run = Annotated[str, typer.Argument(help="id of the run")]


@app.callback()
def _start() -> None:
    """What a hospital does on its own machine."""
    import os

    from vgmedgen.process.logs import PRIVATE

    os.umask(PRIVATE)  # whatever is written belongs to its user alone


def main() -> None:
    """Entry point of the console script."""
    run_cli(app, "vgmedgen-client")


@app.command(epilog="example: vgmedgen-client keygen --site site.yaml")
def keygen(site: Where = HERE) -> None:
    """Make this site's own key; only its public half is sent to the coordinator."""
    from vgmedgen.trust.nodekeys import fingerprint, make, public_bytes

    path = _key_path(folder_of(site))
    line = make(path)
    print(line)
    print(f"fingerprint {fingerprint(public_bytes(line))}")
    print(f"send {path.with_suffix('.pub')} to the coordinator, who registers it;")
    print(f"compare the fingerprint by telephone; {path} never leaves this machine")


@app.command(epilog="example: vgmedgen-client check --site site.yaml")
def check(site: Where = HERE, as_json: AsJson = False) -> None:
    """Look at everything that a node needs, and say what to do about what is missing."""
    import json

    from client.preflight import examine

    found = examine(folder_of(site))
    if as_json:
        print(json.dumps([vars(one) for one in found], indent=2))
    else:
        wide = max(len(one.name) for one in found)
        for one in found:
            mark = "!" if one.ok and one.warning else "✓" if one.ok else "✗"
            todo = f"; {one.todo}" if one.todo else ""
            print(f"{mark} {one.name.ljust(wide)}  {one.told}{todo}")
    wrong = [one for one in found if not one.ok]
    if wrong:
        raise typer.Exit(4 if all(one.unreachable for one in wrong) else 1)


@app.command(epilog="example: vgmedgen-client start --site site.yaml --json")
def start(
    site: Where = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="log JSON lines")] = False,
) -> None:
    """Serve the coordinator's runs until Ctrl-C or SIGTERM."""
    from client.supervisor import serve

    serve(folder_of(site), as_json=as_json)


@policy.command("show", epilog="example: vgmedgen-client policy show --site site.yaml")
def policy_show(site: Where = HERE) -> None:
    """Print what this site lets a run do, one sentence per limit."""
    from client.sentences import sentences
    from vgmedgen.site.config import FILE, keys_of, load_config

    path = folder_of(site) / FILE
    config, keys = load_config(path), keys_of(path)
    limits = {key.removeprefix("policy.") for key in keys if key.startswith("policy.")}
    for sentence in sentences(config, frozenset(limits)):
        print(sentence)


@policy.command(
    "validate", epilog="example: vgmedgen-client policy validate --site site.yaml"
)
def policy_validate(site: Where = HERE) -> None:
    """Check site.yaml, and name what should be allowed on purpose only."""
    from client.sentences import cautions
    from vgmedgen.site.config import FILE, load_config

    path = folder_of(site) / FILE
    found = cautions(load_config(path))
    for sentence in found:
        print(f"! {sentence}")
    print(f"{path} is valid{f', {len(found)} to think about' if found else ''}")


@app.command(epilog="example: vgmedgen-client runs --site site.yaml")
def runs(site: Where = HERE, as_json: AsJson = False) -> None:
    """List the runs that asked something of this site, and how each stands."""
    import json

    from client.standing import run_rows, table

    rows = run_rows(folder_of(site))
    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        print("\n".join(table([tuple(rows[0]), *(tuple(r.values()) for r in rows)])))
    else:
        print("no run has asked anything of this site yet")


@app.command(epilog="example: vgmedgen-client approve demo-1a2b3c4d --by 'A. Officer'")
def approve(
    run: Run,
    site: Where = HERE,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="list every tensor, not only the groups")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    by: By = "",
) -> None:
    """Show all that a run asks of this site, and let it do exactly that."""
    from client.approvals import APPROVED, Approvals
    from client.asking import laid_out
    from client.runfiles import AUDIT
    from vgmedgen.errors import ApprovalError
    from vgmedgen.trust.journal import Journal

    folder, name = folder_of(site), officer(by)
    approvals = Approvals(folder)
    found = approvals.of(run)
    if not found.asks:
        raise ApprovalError(
            f"run {run} has asked nothing of this site; see vgmedgen-client runs"
        )
    ask = found.asks[-1]
    for line in laid_out(ask, folder, every_tensor=tensors):
        print(line)
    print()
    if found.state == APPROVED:
        print(f"run {run} is approved already, by {found.decisions[-1]['by']}")
        return
    if not yes:
        typer.confirm(f"{name}, may run {run} do exactly this?", abort=True)
    # first the log: a decision that it does not hold is none
    Journal(folder / AUDIT).add(
        "approve",
        run=run,
        digest=ask.said["plan-digest"],
        coordinator=ask.said["coordinator"],
        decision="approved",
        approved_by=name,
    )
    approvals.approve(ask, name, datetime.now(UTC))
    print(f"run {run} is approved; the node serves it from its next message on")


@app.command(epilog="example: vgmedgen-client deny demo-1a2b3c4d --by 'A. Officer'")
def deny(run: Run, site: Where = HERE, by: By = "") -> None:
    """Keep a run out, also one that was approved before, until it is approved again."""
    from client.approvals import Approvals
    from client.runfiles import AUDIT, named
    from vgmedgen.trust.journal import Journal

    folder, name = folder_of(site), officer(by)
    Journal(folder / AUDIT).add(
        "deny", run=named(run), decision="denied", approved_by=name
    )
    Approvals(folder).deny(run, name, datetime.now(UTC))
    print(f"run {run} is denied; its messages are refused from the next one on")


@audit.command(
    "verify", epilog="example: vgmedgen-client audit verify --site site.yaml"
)
def audit_verify(site: Where = HERE) -> None:
    """Check every line of the audit log and its place in the chain."""
    from client.runfiles import AUDIT
    from vgmedgen.trust.lines import verified

    for line in verified(folder_of(site) / AUDIT):
        print(line)


@audit.command(
    "show", epilog="example: vgmedgen-client audit show --run demo-1a2b3c4d --json"
)
def audit_show(
    site: Where = HERE,
    run: Annotated[str, typer.Option("--run", help="only lines of this run")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON lines")] = False,
) -> None:
    """Print the audit log, oldest line first; `audit verify` checks it."""
    from client.runfiles import AUDIT
    from vgmedgen.trust.lines import shown

    for line in shown(folder_of(site) / AUDIT, run=run, as_json=as_json):
        print(line)


def _key_path(folder: Path) -> Path:
    """Where the private key lies, or will; read before site.yaml is complete."""
    from vgmedgen.config.values import typed
    from vgmedgen.config.yamlfile import read_yaml
    from vgmedgen.site.config import FILE, Coordinator

    path, key = folder / FILE, None
    told = read_yaml(path) if path.is_file() else None
    section = told.get("coordinator") if isinstance(told, dict) else None
    if isinstance(section, dict):
        key = typed(str | None, section.get("key"), "coordinator.key")
    return folder / (key or Coordinator().key)
