"""What runs inside a hospital: the Flower client app, its egress guard, and the site.

Flower reads its telemetry switch when it is imported. Nothing here may phone home, so
the switch is thrown before anything of Flower is loaded.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
