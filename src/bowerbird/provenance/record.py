"""What a label says.  One JSON object, whichever file it lies in:

    AIGC               the implicit label of GB 45438-2025: seven strings, of which ``Label`` is "1" for generated
    DigitalSourceType  the IPTC's word for what trained models make, by its address
    Bowerbird          of which model and data it is: fingerprints, licence, seed, never a path

``ProduceID`` follows from the content and the origin alone, and no time is recorded, so equal runs make equal files.
``ReservedCode1``, which the standard leaves to the producer, holds the SHA-256 of the content (the file without its
labels), and behind it a key and its signature of everything else in the record where there is a key:

    sha256:HEX            sha256:HEX;ed25519:KEY:SIGNATURE            (KEY and SIGNATURE in base64)
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from bowerbird import __version__

AIGC, SOURCE_TYPE, OWN = "AIGC", "DigitalSourceType", "Bowerbird"
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED = SOURCE_TYPES + "trainedAlgorithmicMedia"
FIELDS = (
    "Label",
    "ContentProducer",
    "ProduceID",
    "ReservedCode1",
    "ContentPropagator",
    "PropagateID",
    "ReservedCode2",
)
GENERATED = "1"
"""``Label`` of what is generated for certain; 2 is "possibly" and 3 "suspected", which propagators write."""
PRODUCER = "Bowerbird"

Record = dict[str, Any]
Sign = Callable[[bytes], str]
"""The message → ``KEY:SIGNATURE``."""


def canonical(value: Any) -> bytes:
    """The same bytes for equal JSON values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def make(content: bytes, origin: Mapping[str, Any], *, producer: str = PRODUCER, sign: Sign | None = None) -> Record:
    """The label of a file whose bytes without any label are ``content``."""
    own = {"version": __version__} | dict(origin)
    produced = hashlib.sha256(canonical(own) + hashlib.sha256(content).digest()).hexdigest()[:32]
    values = (GENERATED, producer, produced, f"sha256:{hashlib.sha256(content).hexdigest()}", "", "", "")
    record: Record = {AIGC: dict(zip(FIELDS, values, strict=True)), SOURCE_TYPE: TRAINED, OWN: own}
    if sign is not None:
        record[AIGC]["ReservedCode1"] += ";ed25519:" + sign(canonical(record))
    return record


def is_ours(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get(OWN), dict) and isinstance(record.get(AIGC), dict)


def belongs(record: Mapping[str, Any], content: bytes) -> bool:
    """Whether the label is of this content."""
    code = str(record[AIGC].get("ReservedCode1", "")).partition(";")[0]
    return code == f"sha256:{hashlib.sha256(content).hexdigest()}"


def signature(record: Mapping[str, Any]) -> tuple[bytes, str] | None:
    """The message that was signed and its ``KEY:SIGNATURE``; None for a record without a signature."""
    bare, separator, signed = str(record[AIGC].get("ReservedCode1", "")).partition(";ed25519:")
    if not separator:
        return None
    unsigned = dict(record) | {AIGC: dict(record[AIGC]) | {"ReservedCode1": bare}}
    return canonical({name: unsigned[name] for name in (AIGC, SOURCE_TYPE, OWN) if name in unsigned}), signed
