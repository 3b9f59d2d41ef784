"""XMP packets: the form in which pictures and sounds hold labels (ISO 16684-1).

The IPTC writes ``Iptc4xmpExt:DigitalSourceType`` (IPTC Photo Metadata Standard), the practice guide to GB 45438-2025 a
property ``AIGC`` of the namespace below whose value is the label as JSON.
"""

import json
import re
import xml.etree.ElementTree as ElementTree
from typing import Any
from xml.sax.saxutils import escape

from bowerbird import __version__
from bowerbird.provenance.record import AIGC, OWN, SOURCE_TYPE, Record

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
TC260 = "http://www.tc260.org.cn/ns/AIGC/1.0/"
XAP = "http://ns.adobe.com/xap/1.0/"
NAMESPACE = "urn:bowerbird:provenance:1:"
LARGEST = 1 << 20
"""Bytes of a packet that is read."""
_PACKET = re.compile(rb"<x:xmpmeta\b.*?</x:xmpmeta\s*>|<rdf:RDF\b.*?</rdf:RDF\s*>", re.S)


def packet(record: Record) -> bytes:
    """The record as a packet; without the label where the record has none."""
    properties = [
        ("xmp:CreatorTool", f"Bowerbird {__version__}"),
        ("Iptc4xmpExt:DigitalSourceType", record[SOURCE_TYPE]),
    ]
    properties += [("TC260:AIGC", json.dumps(record[AIGC]))] if AIGC in record else []
    properties += [("bowerbird:Origin", json.dumps(record[OWN]))]
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in properties)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about=""'
        f' xmlns:xmp="{XAP}" xmlns:Iptc4xmpExt="{IPTC}" xmlns:TC260="{TC260}" xmlns:bowerbird="{NAMESPACE}">'
        f'{inner}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def packets(data: bytes) -> list[str]:
    """The packets in any bytes, as text."""
    found = (match[0] for match in _PACKET.finditer(data) if len(match[0]) <= LARGEST)
    return [one.decode("utf-8", "replace") for one in found]


def properties(text: str) -> list[tuple[str, str]]:
    """(``{namespace}name``, value) of every property that is a text; none where the packet cannot be read.

    Packets that declare entities are not read: no program writes them, and they can be made to grow without end.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return []
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError):
        return []
    found: list[tuple[str, str]] = []
    for element in root.iter():
        found += [(name, value) for name, value in element.attrib.items()]
        if element.text and element.text.strip():
            found.append((element.tag, element.text.strip()))
        if resource := element.get(f"{{{RDF}}}resource"):
            found.append((element.tag, resource))
    return found


def record_in(found: list[tuple[str, str]]) -> dict[str, Any]:
    """What of a record these properties hold."""
    parts: dict[str, Any] = {}
    for name, value in found:
        if name == f"{{{IPTC}}}DigitalSourceType":
            parts.setdefault(SOURCE_TYPE, value)
        for key, wanted in ((AIGC, f"{{{TC260}}}AIGC"), (OWN, f"{{{NAMESPACE}}}Origin")):
            if name == wanted and isinstance(parsed := _object(value), dict):
                parts.setdefault(key, parsed)
    return parts


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
