"""Which attributes of a DICOM header still say who somebody is.

The direct identifiers of the Basic Application Level Confidentiality Profile (DICOM
PS3.15, annex E): every person's name, and what leads to the patient in a hospital's
systems or at home. Dates of the examination and UIDs are not among them.
"""

from collections.abc import Iterator

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

CREATOR = "VGMEDGEN"
"""Private creator, in group 0009, of every DICOM file that this system writes."""

PSEUDONYMS = frozenset({"PatientName", "PatientID"})
"""What a file may hold where it says that the patient's identity was removed."""

IDENTIFYING = PSEUDONYMS | {
    "AccessionNumber",
    "AdmissionID",
    "CurrentPatientLocation",
    "InstitutionAddress",
    "InstitutionName",
    "InsurancePlanIdentification",
    "IssuerOfPatientID",
    "MedicalRecordLocator",
    "OtherPatientIDs",
    "PatientAddress",
    "PatientBirthDate",
    "PatientBirthDateInAlternativeCalendar",
    "PatientBirthTime",
    "PatientInstitutionResidence",
    "PatientTelecomInformation",
    "PatientTelephoneNumbers",
    "PersonAddress",
    "PersonIdentificationCodeSequence",
    "PersonTelephoneNumbers",
    "ReferringPhysicianAddress",
    "ReferringPhysicianTelephoneNumbers",
    "RegionOfResidence",
    "ServiceEpisodeID",
}

_PERSON, _SEQUENCE = "PN", "SQ"
_SHOWN = ("BurnedInAnnotation", "RecognizableVisualFeatures")  # in the pixels, if YES
_DEEPEST = 64  # sequences within sequences


def of(data: Dataset) -> list[str]:
    """Names of the attributes that identify, sorted; none of their values.

    A name and an ID of the patient count as pseudonyms where Patient Identity Removed
    is YES. Sequences are searched whole, private ones too.

    Raises:
        ValueError: if sequences lie deeper than any real file has them.
    """
    removed = str(data.get("PatientIdentityRemoved") or "").strip().upper() == "YES"
    found = set(_search(data, 0))
    return sorted(found - PSEUDONYMS if removed else found)


def is_synthetic(data: Dataset) -> bool:
    """Whether a header says that a generator made the image: this system, or another."""
    said = str(data.get("SyntheticData") or "").strip().upper() == "YES"
    creators = (data.get((0x0009, place)) for place in range(0x10, 0x100))
    return said or any(
        str(element.value).strip() == CREATOR for element in creators if element
    )


def _search(data: Dataset, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError(f"sequences within sequences, more than {_DEEPEST} deep")
    for tag in data.keys():  # noqa: SIM118 items would convert every value, odd ones too
        keyword = keyword_for_tag(tag)
        if not (keyword in IDENTIFYING or keyword in _SHOWN or _kind(data, tag)):
            continue
        element = data[tag]
        if element.VR == _SEQUENCE:
            if keyword in IDENTIFYING and element.value:
                yield keyword
            for item in element.value:
                yield from _search(item, depth + 1)
        elif _tells(element, keyword):
            yield keyword or f"private {element.tag}"


def _kind(data: Dataset, tag: BaseTag) -> bool:
    """Whether an element may be a person's name or a sequence."""
    told = data.get_item(tag).VR
    if told in (None, "UN"):  # implicit: what the dictionary says
        told = dictionary_VR(tag) if dictionary_has_tag(tag) else None
    return told in (None, _PERSON, _SEQUENCE)


def _tells(element: DataElement, keyword: str) -> bool:
    said = str(element.value if element.value is not None else "").strip(" ^=\0")
    if keyword in _SHOWN:
        return said.upper() == "YES"
    return bool(said) and (element.VR == _PERSON or keyword in IDENTIFYING)
