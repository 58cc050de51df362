"""`vgmedgen-server`: what a coordinator does.

Exit 0 done, 1 refused (one line: what, where, limit, what to do, code), 2 misuse, 4 the
server does not answer. Heavy imports happen inside the verbs, so that `--help` stays fast.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgmedgen.cli.shared import run_cli
from vgmedgen.process.logs import PRIVATE

if TYPE_CHECKING:
    from server.kits import Kits

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="What a coordinator does: make kits, serve, run, watch.",
)
audit = typer.Typer(no_args_is_help=True, help="What came in and went out, in a chain.")
app.add_typer(audit, name="audit")

Folder = Annotated[
    Path, typer.Option("--kits", help="the folder that `provision` made")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
KITS = Path("kits")
_FOLLOWING_ENDED = 130  # of a shell command that Ctrl-C ended


def main() -> None:
    """Entry point of the console script."""
    run_cli(app, "vgmedgen-server")


@app.callback()
def _private(context: typer.Context) -> None:
    # runs, their states and logs are the owner's, whatever the shell's umask is
    before = os.umask(PRIVATE)
    context.call_on_close(lambda: os.umask(before))


@app.command(
    epilog="example: vgmedgen-server provision --sites hospital-a,hospital-b "
    "--host fl.example.org --base base-tiny --out kits/"
)
def provision(
    sites: Annotated[str, typer.Option(help="names of the sites, with commas")],
    host: Annotated[str, typer.Option(help="name or address that the sites dial")],
    base: Annotated[Path, typer.Option(help="base bundle that every site holds")],
    out: Annotated[Path, typer.Option(help="folder of the kits")] = KITS,
    port: Annotated[int, typer.Option(help="port that the sites dial")] = 8443,
    days: Annotated[
        int, typer.Option(help="how long the server's certificate holds")
    ] = 825,
    make_keys: Annotated[
        bool,
        typer.Option(
            "--make-keys", help="make the sites' private keys too; for pilots only"
        ),
    ] = False,
) -> None:
    """Make the coordinator's keys, and one kit per site; or kits for more sites."""
    from server.provision import provision as make

    named = [name.strip() for name in sites.split(",") if name.strip()]
    made = make(
        sites=named,
        host=host,
        port=port,
        out=out,
        base=base,
        make_keys=make_keys,
        days=days,
    )
    for name, folder in made.folders.items():
        kept = "  (was there already, is as it was)" if name in made.kept else ""
        print(f"{name:<14} {folder}{kept}")
    print(f"signing key    {made.coordinator}")
    print(f"authority      {made.authority}")
    for name, end in made.expiries.items():
        print(f"{name:<14} certificate until {end:%Y-%m-%d}")
    print("next:")
    for step in made.todo:
        print(f"  {step}")


@app.command(
    epilog="example: vgmedgen-server register hospital-a node.pub --kits kits/"
)
def register(
    site: Annotated[str, typer.Argument(help="name of the site")],
    key: Annotated[
        Path, typer.Argument(help="the site's node.pub", metavar="NODE.pub")
    ],
    folder: Folder = KITS,
    replace: Annotated[
        bool, typer.Option("--replace", help="in place of the key it had")
    ] = False,
    readmit: Annotated[
        bool, typer.Option("--readmit", help="also a site that was removed")
    ] = False,
) -> None:
    """Let a site's node in, by the public key that the site sent."""
    from server.kits import Kits
    from vgmedgen.errors import ConfigError
    from vgmedgen.trust.nodekeys import fingerprint, public_bytes

    try:
        line = key.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(
            f"cannot read {key}: {told}; give the node.pub that {site} sent"
        ) from None
    Kits.open(folder, serving=False).register(
        site, line, replace=replace, readmit=readmit
    )
    print(f"{site} may join with the key {fingerprint(public_bytes(line))}")
    print("compare it with the site by telephone; a running server knows it in seconds")


@app.command(epilog="example: vgmedgen-server remove hospital-a --kits kits/")
def remove(
    site: Annotated[str, typer.Argument(help="name of the site")],
    folder: Folder = KITS,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Shut a site out: its key is refused, and runs under way go on without it."""
    from server.kits import Kits
    from server.removal import remove as shut_out

    kits = Kits.open(folder, serving=False)
    if not yes:
        typer.confirm(f"shut {site} out of every run?", abort=True)
    done = shut_out(kits, site)
    key = "its key is refused" if done.had_key else "it had no key yet"
    print(f"{site} is removed; {key}, by a running server in seconds")
    for run, left in done.going.items():
        few = ", too few for a round" if run in done.short else ""
        print(f"run {run} goes on without it, with {left} sites{few}")
    if done.kit is not None:
        print(
            f"its kit {done.kit} is left as it is: it may hold the hospital's own files"
        )
    print("what earlier rounds had of it stays in the model, and in every release")


@app.command(epilog="example: vgmedgen-server renew --kits kits/ --days 825")
def renew(
    folder: Folder = KITS,
    days: Annotated[int, typer.Option(help="how long the new one holds")] = 825,
) -> None:
    """Make a new server certificate under the same authority; sites need do nothing."""
    from server.kits import Kits
    from server.provision import renew as make

    end = make(Kits.open(folder, serving=False), days)
    print(f"the server's certificate holds until {end:%Y-%m-%d}")
    print("restart `vgmedgen-server start` to serve with it; kits stay as they are")


@app.command(epilog="example: vgmedgen-server start --kits kits/ --page")
def start(
    folder: Folder = KITS,
    port: Annotated[
        int | None, typer.Option(help="port to listen on; default: the kits'")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="address to listen on; default: the kits'")
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="serve the status page, on loopback only")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="log JSON lines")] = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM; runs that were cut off go on."""
    from server.kits import Kits
    from server.supervisor import serve

    serve(Kits.open(folder), port=port, listen=listen, page=page, as_json=as_json)


@app.command(
    epilog="example: vgmedgen-server run --kits kits/ experiment=pilot "
    "federation.generate_rounds=4"
)
def run(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="config overrides, such as experiment=NAME or seed=1"),
    ] = None,
    folder: Folder = KITS,
    name: Annotated[
        str | None, typer.Option(help="id of the run; default: of its configuration")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="start it and return at once")
    ] = False,
    release_anyway: Annotated[
        bool,
        typer.Option(
            "--release-anyway",
            help="release a run whose last rounds did not count, as it is",
        ),
    ] = False,
) -> None:
    """Start a run, or go on with it, and follow it round by round."""
    from server.kits import Kits
    from server.launching import launch

    kits = Kits.open(folder)
    started = launch(kits, overrides or [], name=name, release_anyway=release_anyway)
    if detach:
        print(f"run {started} waits for its turn")
        print(f"look: vgmedgen-server status --kits {folder} --watch")
        return
    try:
        _follow(kits, started)
    except KeyboardInterrupt:
        print(f"no longer following; run {started} goes on")
        print(f"look: vgmedgen-server status --kits {folder} --watch")
        print(f"stop: vgmedgen-server stop {started} --kits {folder}")
        raise typer.Exit(_FOLLOWING_ENDED) from None


def _follow(kits: "Kits", run: str) -> None:
    """Print what happens; ask, where somebody is there, what only a person may decide."""
    from server import accepting, launching, runs
    from vgmedgen.errors import TooFewSitesError

    while True:
        try:
            for line in launching.follow(kits, run):
                print(line, flush=True)
        except TooFewSitesError as error:
            open_question = accepting.pending(runs.folder_of(kits.state, run))
            if not open_question or not _somebody_is_there():
                raise
            print(f"run {run}: {open_question}")
            if not typer.confirm("release that?"):
                raise error from None
            launching.go_on_anyway(kits, run)
        else:
            return


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


@app.command(epilog="example: vgmedgen-server status --kits kits/ --watch")
def status(
    folder: Folder = KITS,
    watching: Annotated[
        bool, typer.Option("--watch", help="full screen, live; q leaves")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show nodes, runs and rounds: who took part, who did not and why."""
    from rich.console import Console

    from server.kits import Kits
    from server.live import watch
    from server.looking import Looking
    from server.status import to_json
    from server.view import render
    from vgmedgen.errors import ConfigError

    if watching and as_json:
        raise ConfigError("--watch and --json do not go together; choose one")
    with Looking(Kits.open(folder, serving=False)) as look:
        if watching:
            watch(look)
        elif as_json:
            print(to_json(look()))
        else:
            Console().print(render(look()))


@app.command(epilog="example: vgmedgen-server stop demo-1a2b3c4d --kits kits/")
def stop(
    name: Annotated[str, typer.Argument(help="id of the run", metavar="RUN")],
    folder: Folder = KITS,
) -> None:
    """Stop a run; `run` with the same words goes on from its last complete round."""
    from server.kits import Kits
    from server.launching import stop as end

    end(Kits.open(folder, serving=False), name)
    print(f"run {name} is stopped; what its rounds made stays")


@app.command(
    epilog="example: vgmedgen-server publish demo-1a2b3c4d --kits kits/ --out releases"
)
def publish(
    name: Annotated[str, typer.Argument(help="id of the run", metavar="RUN")],
    out: Annotated[
        Path, typer.Option(help="folder of releases; nothing in it is overwritten")
    ],
    folder: Folder = KITS,
) -> None:
    """Write the signed release of a finished run as a folder, and as one file.

    Every byte is checked first. No server needs to run. A hospital that was offline
    when the run ended installs the file.
    """
    from server.kits import Kits
    from server.publish import publish as write

    done = write(Kits.open(folder, serving=False), name, out)
    print(f"release      {done.digest}")
    print(f"signed on    {done.created}")
    print(f"signed by    {done.coordinator}")
    print(f"folder       {done.folder}")
    print(f"file         {done.file}{'  (was there already)' * done.told_before}")
    print("next: send the file to every hospital that was offline, by any way; there")
    print(f"  vgmedgen-client install {done.file.name} --site site.yaml")
    print(
        f"tell them by telephone: release {done.digest[:16]}, signed by "
        f"{done.coordinator[:16]}; their policy.coordinators lists that key"
    )


@audit.command("verify", epilog="example: vgmedgen-server audit verify --kits kits/")
def audit_verify(folder: Folder = KITS) -> None:
    """Check every line of the audit log and its place in the chain."""
    from vgmedgen.trust.lines import verified

    for line in verified(_audit(folder)):
        print(line)


@audit.command(
    "show",
    epilog="example: vgmedgen-server audit show --kits kits/ --run demo-1a2b3c4d",
)
def audit_show(
    folder: Folder = KITS,
    name: Annotated[str, typer.Option("--run", help="only lines of this run")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON lines")] = False,
) -> None:
    """Print the audit log, oldest line first; `audit verify` checks it."""
    from vgmedgen.trust.lines import shown

    for line in shown(_audit(folder), run=name, as_json=as_json):
        print(line)


def _audit(folder: Path) -> Path:
    from server.kits import Kits
    from server.place import AUDIT

    return Kits.open(folder, serving=False).state / AUDIT
