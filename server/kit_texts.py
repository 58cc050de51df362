"""The two files that people read and edit: coordinator.yaml and a kit's site.yaml."""

import json

from server.kits import CoordinatorConfig
from vgmedgen.site.config import Policy

LEAST_UNITS = 20  # below which a kit's policy lets nothing train
EPSILON = 8.0  # that a kit's site.yaml lets a unit lose, over all runs

_COORDINATOR = """\
# Settings of this coordinator; every site was given the host, the port and the digest.
name: {name} # for people
host: {host} # that sites dial; after a change: vgmedgen-server renew
port: {port} # that sites dial: the one port that has to be open
listen: 0.0.0.0 # address of the public listener
admin_port: {admin_port} # loopback only: Flower's control and runtime paths
page_port: {page_port} # loopback only: the read-only web page
base: {base} # folder of the base bundle
base_digest: {base_digest} # that it must have, and every site's
"""

_SITE = """\
# {site}: where this hospital's data lies, and what it lets a run do.
# Only the hospital writes this file. Nothing that a run asks for can loosen it.
#
#   1. fill in `base` and `sources`, and read the policy below
#   2. vgmedgen-client keygen    makes node.key; send node.pub to the coordinator
#   3. vgmedgen-client check     says what is still missing, line by line
#   4. vgmedgen-client start

name: {name} # pseudonym that every reply carries

# FILL IN: the folder of the base bundle. It is accepted only with this digest.
base: ""
base_digest: {base_digest}

# FILL IN: in place of [], one line for each dataset, such as
#   - {{dataset: table, root: /data/lesions.csv}}
# `table` reads a csv with the columns image, mask (optional), caption, patient_id;
# ham10000, busi and kvasir-seg read folders in their published layout.
# privacy protects the patient where the table has a column patient_id, filled on every row;
# lesion_id or unit in its place where it knows lesions, or something else.
# grouping: units.csv beside root joins units: a csv (image, unit) of which images are one
# patient's, or one picture's; `vgmedgen data twins` writes one.
sources: []

heldout: 0.2 # share of the units that never trains
device: auto # auto | cpu | cuda

coordinator:
  address: {address} # the only address that is ever dialled, outbound
  ca: ca.crt # the only authority that is trusted for it
  key: node.key # stays here, readable by its owner alone

# How much privacy a unit may lose, over all runs; the ledger refuses what does not fit.
# As it comes, only runs with differential privacy are served. What that costs: a run needs
# 64 units that train, by default, and learns far less: on public images about a fifth at
# epsilon 8, a tenth at 3, of what it learnt without (vgmedgen/privacy/README.md).
# To go without, which bounds nothing of what a run tells of a patient, set epsilon: 0 here
# and dp: optional below; units that were trained on so can never be promised anything.
privacy:
  epsilon: {budget:g} # no run whose units would lose more; 0: only runs without a bound
  delta: 1.0e-5 # at which epsilon is counted; far below 1 / units

policy:
  # Only runs that one of these keys has signed are served, and only releases that one of
  # them has signed are installed (coordinator.pub).
  coordinators:
    - {coordinator}
  dp: required # optional: also runs without differential privacy; refused: only those
  approval: required # a run waits for `vgmedgen-client approve RUN`; none: it does not
  min_units: {least} # nothing trains on fewer units
  min_heldout: 5 # no held-out loss leaves that was measured on fewer
  min_batch: 8 # images of a step without differential privacy

  # Further limits, each with what holds while its line stays a comment:
  # runs: ["*"] # patterns of run ids, such as ["pilot-*"]
  # stages: [align, generate] # what a round may train
  # dry_run: false # true: train, and show in dry-run/ what would leave; send nothing
  # metrics: true # false: no loss leaves (with differential privacy it never does)
  # epsilon_per_run: {epsilon:g} # the most that one run may cost a unit
  # rounds_per_run: {rounds_per_run}
  # rounds_per_day: {rounds_per_day} # days of this machine's clock
  # steps_per_round: {steps_per_round} # optimiser steps
  # learning_rate: {learning_rate:g} # the highest that a run may ask for
  # exchange: "" # digest of the list of what may leave; empty: as this base has it
  # hours: "" # such as 20:00-06:00, local time; empty: always
  # worse_by: {worse_by:g} # share by which a release's held-out loss here may be above the
  #   base's and that of the one in use; beyond it is installed, not used; 0: any is used
  # ungated: false # true: synthetic images that no gate compared may be kept
  # identified_dicom: false # true: DICOM files that name a patient may train
"""


def address(config: CoordinatorConfig) -> str:
    """What sites dial, as host:port."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{host}:{config.port}"


def coordinator_yaml(config: CoordinatorConfig) -> str:
    """The text of coordinator.yaml."""
    return _COORDINATOR.format(
        name=_quoted(config.name),
        host=_quoted(config.host),
        port=config.port,
        admin_port=config.admin_port,
        page_port=config.page_port,
        base=_quoted(config.base),
        base_digest=_quoted(config.base_digest),
    )


def site_yaml(site: str, config: CoordinatorConfig, coordinator: str) -> str:
    """The text of a kit's site.yaml.

    Args:
        site: its name.
        config: of the coordinator.
        coordinator: public half of its signing key.
    """
    open_to_all = Policy()
    return _SITE.format(
        site=site,
        name=_quoted(site),
        base_digest=_quoted(config.base_digest),
        address=_quoted(address(config)),
        coordinator=_quoted(coordinator),
        least=LEAST_UNITS,
        budget=EPSILON,
        epsilon=open_to_all.epsilon_per_run,
        rounds_per_run=open_to_all.rounds_per_run,
        rounds_per_day=open_to_all.rounds_per_day,
        steps_per_round=open_to_all.steps_per_round,
        learning_rate=open_to_all.learning_rate,
        worse_by=open_to_all.worse_by,
    )


def _quoted(text: str) -> str:
    return json.dumps(text)  # a JSON string is a YAML one
