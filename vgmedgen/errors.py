"""The errors of this system, each with a code that may cross a hospital's wall.

```text
VGMedGenError        VG00  anything unforeseen
├── ConfigError      VG10  a config file or an override is not a valid run
├── BaseError        VG15  a base bundle is missing, changed or not the run's
├── DataError        VG20  a site's images, masks or captions are unusable
├── ExchangeError    VG30  a payload does not match the exchange schema
│   └── VersionError VG31  the other side speaks another version of the protocol
├── PolicyError      VG40  the run asks for more than the site allows
│   ├── BudgetError  VG41  the site has less privacy left than the run would spend
│   ├── ApprovalError VG42 the site's data officer has not approved the run
│   ├── NotNowError  VG43  outside the site's hours, or its rounds of the day are used up
│   ├── DryRunError  VG44  the site only shows what would leave; nothing is sent
│   └── ReplayError  VG45  an order that the site has left behind, or answered otherwise
├── TrainingError    VG50  local training stopped
├── StateError       VG55  state could not be written or read back
│   └── TooFewSitesError VG56 fewer sites are there than a round needs
├── ReleaseError     VG60  a release is incomplete, changed or not for this base
├── TrustError       VG70  a key, certificate or signature cannot be used or trusted
└── UnreachableError VG75  the other side does not answer (exit code 4)
```

A message says what was found, where, the limit, and what to do next, in one line. It
may name files and patients and therefore stays at the site: only the code leaves.
"""


class VGMedGenError(Exception):
    """Base of every error that a user can do something about."""

    code = "VG00"
    exit_code = 1  # of a command that ends with it


class ConfigError(VGMedGenError):
    """A config file or an override does not describe a valid run."""

    code = "VG10"


class BaseError(VGMedGenError):
    """A base bundle is missing, changed, or not the one that the run names."""

    code = "VG15"


class DataError(VGMedGenError):
    """A site's images, masks, captions or tables cannot be used as they are."""

    code = "VG20"


class ExchangeError(VGMedGenError):
    """A payload holds something other than what the exchange schema lists."""

    code = "VG30"


class VersionError(ExchangeError):
    """The other side speaks another version of the protocol."""

    code = "VG31"


class PolicyError(VGMedGenError):
    """The run asks a site for more than the site allows."""

    code = "VG40"


class BudgetError(PolicyError):
    """The privacy that a site has left does not cover what the run asks for."""

    code = "VG41"


class ApprovalError(PolicyError):
    """The run waits for, or was denied, the approval of the site's data officer."""

    code = "VG42"


class NotNowError(PolicyError):
    """The site serves no run at this hour, or no more rounds today."""

    code = "VG43"

    def __init__(self, message: str = "", why: str = "hours") -> None:
        super().__init__(message)
        self.why = why  # hours | rounds: its word in an audit log


class DryRunError(PolicyError):
    """The site trains only to show what would leave; nothing is sent."""

    code = "VG44"


class ReplayError(PolicyError):
    """An order for a round that the site has left behind, or answered otherwise."""

    code = "VG45"


class TrainingError(VGMedGenError):
    """Local training stopped; nothing was saved or sent."""

    code = "VG50"


class StateError(VGMedGenError):
    """State could not be written, or what is on disk is not what was written."""

    code = "VG55"


class TooFewSitesError(StateError):
    """Fewer sites are there, or let the run in, than a round needs."""

    code = "VG56"


class ReleaseError(VGMedGenError):
    """A release is incomplete, changed, or made for another base."""

    code = "VG60"


class TrustError(VGMedGenError):
    """A key, a certificate or a signature cannot be used, or is not trusted here."""

    code = "VG70"


class UnreachableError(VGMedGenError):
    """The other side does not answer."""

    code = "VG75"
    exit_code = 4


def kinds() -> list[type[VGMedGenError]]:
    """Every kind of error, the general one first; `codes.CODES` says what each means."""
    found = [VGMedGenError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def error_of(code: str, message: str) -> VGMedGenError:
    """An error that was written down by its code and its message."""
    for kind in kinds():
        if kind.code == code:
            return kind(message)
    return VGMedGenError(message)
