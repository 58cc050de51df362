"""Whether a container is well, for its engine: exit 0, or 1 and one line.

`health.py server CA_CERTIFICATE [PORT]` asks the public listener as a hospital would.
`health.py client` looks for the node's processes, and when the coordinator last confirmed
a heartbeat of it. It takes no lock, reads one file of the site and sends nothing.
"""

import http.client
import json
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

COMMAND = "vgmedgen-client"
MODULE = "client.node"  # its two processes: python -m client.node ROLE FOLDER
ROLES = ("supernode", "runner")
HEARD = "node/heard.json"  # below the site's folder; the node's supervisor writes it
UNHEARD_S = 120.0  # without a confirmed heartbeat for so long the node is offline


def server(authority: str, port: int = 8443) -> str:
    """What is wrong with the coordinator on this machine; nothing if it is well.

    Its certificate has to chain to `authority` and be valid today. The name in it is the
    one that hospitals dial, so it is not compared with 127.0.0.1.
    """
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False
    link = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        link.request("GET", "/health")
        answer = link.getresponse()
        status, told = answer.status, answer.read(200).decode(errors="replace").strip()
    finally:
        link.close()
    return "" if status == http.client.OK else f"/health answered {status}: {told}"


def client(proc: Path = Path("/proc")) -> str:
    """What is wrong with the node on this machine; nothing if it is well."""
    found = dict(processes(proc))
    # `vgmedgen-client start`, or python with it; not an init that was told to run it
    keepers = {
        number
        for number, (_, words) in found.items()
        if COMMAND in (Path(word).name for word in words[:2]) and "start" in words
    }
    if not keepers:
        return f"no {COMMAND} start runs here"
    roles = {
        words[words.index(MODULE) + 1]: Path(*words[words.index(MODULE) + 2 :][:1])
        for parent, words in found.values()
        if parent in keepers and MODULE in words[:-1]
    }
    missing = [role for role in ROLES if role not in roles]
    if missing:
        return f"no {' and no '.join(missing)} runs; the log says why"
    return unheard(roles[ROLES[0]] / HEARD)


def unheard(path: Path) -> str:
    """What is wrong with the node's heartbeats; nothing if one was confirmed lately."""
    told = json.loads(path.read_text(encoding="utf-8"))
    last = told["since"] if told["clock"] is None else told["clock"]
    seconds = time.monotonic() - float(last)
    if seconds <= UNHEARD_S:
        return ""
    since = told["at"] or "its start"
    return f"the coordinator has not heard this node since {since}; the log says why"


def processes(proc: Path) -> Iterator[tuple[int, tuple[int, list[str]]]]:
    """Number, parent's number and command line of every living process."""
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # the name in brackets may hold spaces: what matters stands behind it
            told = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            state, parent = told.rpartition(")")[2].split()[:2]
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it ended meanwhile, or is another user's
            continue
        if state != "Z":  # ended, and nobody has taken note of it yet
            yield int(folder.name), (int(parent), words.split("\0"))


def main(words: list[str]) -> str:
    """What is wrong with the part that `words` name; nothing if it is well."""
    try:
        if words[:1] == ["client"]:
            return client()
        if words[:1] == ["server"] and len(words) > 1:
            return server(words[1], *map(int, words[2:3]))
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        return f"{words[0]}: {error}"
    return "say client, or server and its CA certificate"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) or 0)
