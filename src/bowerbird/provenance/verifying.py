"""Reads every layer of any file, and says what each of them says.

    ours      signed by a key that is known here, or our watermark
    claimed   our label, and the file is what was labelled, but nobody known here signed it: it says so itself
    altered   our label on another content, or a signature that does not hold: edited, copied from elsewhere, or forged
    other     another generator's label, or the parameters that its programs leave behind
    unknown   nothing that says so

"unknown" is never "made by people": labels can be taken away, and a file that claims a camera may lie.  "claimed"
proves nothing: a label without a signature, or signed with a key of one's own, can be written by anybody.
"""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bowerbird.errors import BowerbirdError
from bowerbird.provenance import containers, generators, marks, signing, written, xmp
from bowerbird.provenance.labelling import SIDECAR
from bowerbird.provenance.origins import matching
from bowerbird.provenance.rasters import Found
from bowerbird.provenance.record import AIGC, FIELDS, GENERATED, OWN, belongs, is_ours
from bowerbird.provenance.record import signature as signature_of
from bowerbird.provenance.verdict import Judgement, Layer, Verdict

LARGEST_BYTES = 1 << 30
RASTERS = (containers.PNG, containers.JPEG, containers.GIF, containers.WEBP)
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
"""Suffixes of files that are pictures or damaged."""
_RANK: tuple[Judgement, ...] = ("altered", "ours", "claimed", "other", "unknown")
"""If layers differ, the first of these is the judgement of the file."""


def verify(file: Path | str, *, runs: Sequence[Path | str] = (), anchors: Sequence[Path | str] = ()) -> Verdict:
    """Everything that is found in a file; BowerbirdError if it cannot be read.

    ``runs``: folders of runs that may have made it, which are named if they did.  ``anchors``: certificates of
    authorities whose signatures are trusted, besides this user's own.
    """
    path, trusted = Path(file), [_pem(Path(anchor)) for anchor in anchors]
    try:
        layers = _layers(path, _read(path), [Path(run) for run in runs], trusted)
    except OSError as error:
        raise BowerbirdError(f"{error.filename or path} cannot be read: {error.strerror or error}.") from error
    judged: Judgement = next((one for one in _RANK if any(layer.judgement == one for layer in layers)), "unknown")
    return Verdict(str(path), judged, list({(one.layer, one.judgement, one.says): one for one in layers}.values()))


def _layers(path: Path, data: bytes, runs: list[Path], anchors: list[str]) -> list[Layer]:
    try:
        found = containers.read(data)
    except (ValueError, IndexError) as error:
        raise BowerbirdError(f"{path} is damaged: {_reason(error)}.") from error
    layers = [*_labels(path, data, found, runs, anchors), *_manifest(data, found, anchors), *generators.foreign(found)]
    shown, is_picture = _picture(data), path.suffix.lower() in PICTURES or containers.kind_of(data) in RASTERS
    if is_picture and not (layers or shown or _opens(data)):
        raise BowerbirdError(f"{path} cannot be opened as a picture: it is damaged or too large.")
    if shown is None and is_picture:
        layers.append(Layer("watermark", "unknown", "not looked for: the pixels cannot be decoded"))
    if shown is not None:
        layers += marks.in_pixels(shown)
    for run in runs:
        layers += [*marks.in_words(data, run), *marks.in_noise(shown, run)]
    return layers


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) and "codec" not in str(error) else "it is cut short"


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise BowerbirdError(f"{path} is a folder; name the files: bowerbird verify {path}/*")
    if not path.is_file():
        raise BowerbirdError(f"{path} does not exist or is not a file.")
    if path.stat().st_size > LARGEST_BYTES:
        raise BowerbirdError(f"{path} is larger than {LARGEST_BYTES >> 30} GiB, which is more than verify reads.")
    data = path.read_bytes()
    if not data:
        raise BowerbirdError(f"{path} is empty.")
    return data


def _pem(path: Path) -> str:
    try:
        text = path.read_text("ascii")
    except (OSError, ValueError):
        text = ""
    if "BEGIN CERTIFICATE" not in text:
        raise BowerbirdError(f"{path} holds no certificate; name the anchor.pem of the signer.")
    return text


# ------------------------------------------------------------------------------------------------------------- labels


def _labels(path: Path, data: bytes, found: Found, runs: list[Path], anchors: list[str]) -> Iterator[Layer]:
    """Our labels and those of GB 45438, wherever they are, and what they are about."""
    records = list(_records(path, data, found))
    ours = {json.dumps(record, sort_keys=True): (where, record, content) for where, record, content in records}
    for where, record, content in ours.values():
        if is_ours(record):
            yield from _ours(where, record, content, runs, anchors)
        elif AIGC in record and not any(is_ours(other) and other[AIGC] == record[AIGC] for _, other, _ in records):
            yield _tc260(where, record[AIGC])


def _records(path: Path, data: bytes, found: Found) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """(where, record, the content that it must be of) of every label; the parts that our own has first."""
    for text in found.texts:
        whole = xmp.record_in(xmp.properties(text.text)) if text.where == "xmp" else written.labelled_in(text)
        if whole:
            yield ("XMP" if text.where == "xmp" else text.where), whole, found.content
    if containers.kind_of(data) is None and containers.is_text(data):
        if fields := containers.front_matter(data):
            yield "front matter", {AIGC: fields}, data
        for row in written.rows(data):
            record = {key: row[key] for key in written.KEYS if key in row}
            if isinstance(record.get(AIGC), dict):
                yield "JSON", record, _beside(path) if path.name.endswith(SIDECAR) else written.content(row)
    beside = path.with_name(path.name + SIDECAR)
    if _is_file(beside) and beside.stat().st_size < xmp.LARGEST:
        record = written.parsed(beside.read_bytes())
        if isinstance(record, dict) and isinstance(record.get(AIGC), dict):
            yield beside.name, record, data


def _is_file(path: Path) -> bool:
    """False too for a name that is too long to be one."""
    try:
        return path.is_file()
    except OSError:
        return False


def _beside(path: Path) -> bytes:
    """What the file holds that a sidecar is about; nothing if it is not there."""
    file = path.with_name(path.name.removesuffix(SIDECAR))
    return file.read_bytes() if file.is_file() and file.stat().st_size <= LARGEST_BYTES else b""


def _ours(where: str, record: dict[str, Any], content: bytes, runs: list[Path], anchors: list[str]) -> Iterator[Layer]:
    details = dict(record[OWN]) | {"produce_id": record[AIGC].get("ProduceID", "")}
    by = ", ".join(f"{key.replace('_', ' ')} {str(value)[:80]}" for key, value in record[OWN].items())
    model = str(record[OWN].get("model", ""))
    if model and (run := matching(model, runs)):
        details["run"], by = str(run), f"{by}; made by {run}"
    elif model and runs:
        by = f"{by}; not made by {', '.join(map(str, runs))}"
    if belongs(record, content):
        yield Layer("label", "claimed", f"says that it was generated by Bowerbird ({where}): {by}", details)
    else:
        says = f"has a label of Bowerbird ({where}), but the content is not what was labelled: {by}"
        yield Layer("label", "altered", says, details)
    if signed := signature_of(record):
        yield _signed(record, *signed, anchors)


def _signed(record: dict[str, Any], message: bytes, signed: str, anchors: list[str]) -> Layer:
    key = signed.partition(":")[0]
    valid = signing.is_signed(message, signed)
    if valid is None:
        return Layer("signature", "unknown", f"not checked: {signing.INSTALL}", {"key": key})
    producer = str(record[AIGC].get("ContentProducer", ""))
    if not valid:
        return Layer("signature", "altered", "invalid: the label was changed after it was signed", {"key": key})
    known = key in signing.trusted_keys(anchors)
    by = (
        f"{producer}, whose key is known here"
        if known
        else f"a key that is not known here, which calls itself {producer}"
    )
    return Layer("signature", "ours" if known else "claimed", f"valid, by {by}", {"key": key, "known": known})


def _tc260(where: str, fields: dict[str, Any]) -> Layer:
    shown = {name: str(fields[name])[:200] for name in FIELDS if name in fields}
    degree = {GENERATED: "generated", "2": "possibly generated", "3": "suspected to be generated"}
    label = str(fields.get("Label", ""))
    by = shown.get("ContentProducer") or "nobody named"
    return Layer("TC260", "other", f"TC260 ({where}): {degree.get(label, f'Label {label[:40]}')}, by {by}", shown)


# ------------------------------------------------------------------------------------------------- others' and C2PA's


def _manifest(data: bytes, found: Found, anchors: list[str]) -> Iterator[Layer]:
    kind = containers.kind_of(data)
    if not found.has_c2pa:
        return
    media_type = kind.media_type if kind else _media_type(data)
    manifest = signing.read_manifest(data, media_type, anchors)
    if manifest is None:
        yield Layer("C2PA", "unknown", f"has a C2PA manifest that was not read; {signing.INSTALL}")
        return
    terms = [term.rpartition("/")[2] for term in manifest.source_types]
    by = f"{manifest.generator or 'an unnamed program'}, signed by {manifest.signer or 'nobody named'}"
    details: dict[str, Any] = {"state": manifest.state, "generator": manifest.generator, "signer": manifest.signer}
    details |= {"source_types": terms, "problems": manifest.problems}
    mine, made = manifest.generator == "Bowerbird", any(term in generators.MADE_BY_MODELS for term in terms)
    if manifest.state == "Invalid":
        broken = ", ".join(manifest.problems) or "it does not hold"
        yield Layer("C2PA", "altered" if mine else "other" if made else "unknown", f"invalid ({broken}): {by}", details)
        return
    trust = "trusted" if manifest.state == "Trusted" else "by a signer that is not known here"
    term = f", {', '.join(terms)}" if terms else ""
    by_us: Judgement = "ours" if manifest.state == "Trusted" else "claimed"
    judged: Judgement = by_us if mine and made else "other" if made else "unknown"
    yield Layer("C2PA", judged, f"valid, {trust}: {by}{term}", details)


def _media_type(data: bytes) -> str:
    brand = data[8:12]
    if data[4:8] == b"ftyp":
        return {b"avif": "image/avif", b"heic": "image/heic", b"M4A ": "audio/mp4"}.get(brand, "video/mp4")
    begins = {b"%PDF": "application/pdf", b"fLaC": "audio/flac", b"II*\0": "image/tiff", b"MM\0*": "image/tiff"}
    return begins.get(data[:4]) or ("image/svg+xml" if b"<svg" in data[:1024] else "application/octet-stream")


def _picture(data: bytes) -> Any:
    """The picture in a file as Pillow shows it; None if there is none that it can decode."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.convert("RGBA" if picture.mode in ("P", "PA", "LA", "RGBA") else "RGB")
    except Exception:  # it says in many ways that it cannot
        return None


def _opens(data: bytes) -> bool:
    """Whether a file says what picture it is, even if some of its pixels are missing."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)):
            return True
    except Exception:  # as above
        return False
