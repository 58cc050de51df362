"""What Flower ships to nodes with a run: of ours a description, and no code."""

import io
import zipfile

RUN_KEY = "run"  # in a run's Flower config: our own id of it
_BUNDLE = """\
[project]
name = "vgmedgen"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "vgmedgen"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
run = ""
"""


def bundle() -> bytes:
    """What Flower wants to ship to nodes: a description, and not one line of code."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        entry = zipfile.ZipInfo("pyproject.toml", date_time=(1980, 1, 1, 0, 0, 0))
        archive.writestr(entry, _BUNDLE)
    return content.getvalue()
