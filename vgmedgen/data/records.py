"""What a dataset is once it is read: records that name files, facts and units.

Nothing here opens an image; `vgmedgen.data.images` does.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vgmedgen.config.plan import UNITS
from vgmedgen.errors import DataError

MODALITIES = ("dermoscopy", "ultrasound", "endoscopy", "")
UNIT_KINDS = UNITS


@dataclass(frozen=True)
class Record:
    """One image, where its masks lie, and what is known of it.

    Attributes:
        id: Unique in its dataset.
        image: File of the image.
        masks: Files whose union is the lesion; none means an empty mask.
        unit: Patient, lesion or image: what a split never separates.
        label: Diagnosis or class as the dataset writes it; empty where unknown.
        facts: Further columns by name; empty values are left out.
        caption: Text that replaces the caption made from facts and pixels.
    """

    id: str
    image: Path
    masks: tuple[Path, ...]
    unit: str
    label: str
    facts: Mapping[str, str]
    caption: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Records of one source; unique ids, at least one record unless cut by `only`.

    Attributes:
        name: Of the adapter that read it.
        modality: One of MODALITIES; empty where the data does not say.
        unit_kind: What a record's unit is, one of UNIT_KINDS.
        records: In a fixed order.
        copies: Pairs of images with equal bytes that were of two units and are of one
            now for that reason alone: which units there are then hangs on pixels.
    """

    name: str
    modality: str
    unit_kind: str
    records: tuple[Record, ...]
    copies: tuple[tuple[Path, Path], ...] = ()

    def __post_init__(self) -> None:
        """Check that ids are unique and kinds are known."""
        if self.modality not in MODALITIES:
            raise ValueError(f"modality is none of {MODALITIES}: {self.modality!r}")
        if self.unit_kind not in UNIT_KINDS:
            raise ValueError(f"unit_kind is none of {UNIT_KINDS}: {self.unit_kind!r}")
        seen: dict[str, Record] = {}
        for record in self.records:
            first = seen.setdefault(record.id, record)
            if first is not record:
                raise DataError(
                    f"{self.name}: two records have the id '{record.id}' "
                    f"({first.image} and {record.image}); an id may stand once: "
                    "remove or rename one of them"
                )

    @property
    def units(self) -> tuple[str, ...]:
        """Every unit once, sorted."""
        return tuple(sorted({record.unit for record in self.records}))

    def only(self, units: Collection[str]) -> "Dataset":
        """The records whose unit is in `units`, in their order."""
        kept = frozenset(units)
        records = tuple(record for record in self.records if record.unit in kept)
        here = {record.image for record in records}
        copies = tuple(pair for pair in self.copies if here.issuperset(pair))
        return replace(self, records=records, copies=copies)
