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
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bowerbird.data.tokenizers import Tokenizer
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Inverts
from bowerbird.provenance import containers, signing, spectrum, written, xmp
from bowerbird.provenance.labelling import SIDECAR
from bowerbird.provenance.origins import matching
from bowerbird.provenance.rasters import Found, Text
from bowerbird.provenance.record import AIGC, FIELDS, GENERATED, OWN, SOURCE_TYPE, SOURCE_TYPES, belongs, is_ours
from bowerbird.provenance.record import signature as signature_of
from bowerbird.samplers import greenlist, noisemark
from bowerbird.spec import Tensors, Tokens
from bowerbird.training.rundir import RunDir, load_model

Judgement = Literal["ours", "claimed", "altered", "other", "unknown"]
LARGEST_BYTES = 1 << 30
RASTERS = (containers.PNG, containers.JPEG, containers.GIF, containers.WEBP)
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
"""Suffixes of files that are pictures or damaged."""
_RANK: tuple[Judgement, ...] = ("altered", "ours", "claimed", "other", "unknown")
"""If layers differ, the first of these is the judgement of the file."""
MADE_BY_MODELS = (
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "algorithmicMedia",
    "compositeSynthetic",
)
"""Terms of the IPTC for what models or algorithms made, wholly or in part."""
GENERATORS = re.compile(
    r"\b(?:stable[ -]?diffusion|sdxl|midjourney|dall[·.\- ]?e|chatgpt|gpt-4o|openai|imagen|google ai|gemini|firefly|"
    r"novelai|invokeai|comfyui|automatic1111|flux(?:\.1|-pro|-dev)|ideogram|leonardo\.?ai|suno|udio|elevenlabs|"
    r"stability ai|black forest labs|runwayml|doubao|jimeng|kling|hunyuan|tongyi|qwen|grok)\b",
    re.IGNORECASE,
)
_PARAMETERS = re.compile(r"\bSteps: \d+\b.*\b(?:Sampler|CFG scale|Seed): ", re.S)
_SETTING = re.compile(
    r"\b(steps|seed|prompt|positive_prompt|negative_prompt|cfg[ _]?scale|guidance[ _]?scale|sampler(?:[ _]?name)?|"
    r"scheduler|model[ _]hash)\"?\s*:",
    re.IGNORECASE,
)
_DREAM = re.compile(r"\s-s ?\d+\b.*\s-(?:S ?\d+|C ?[\d.]+)", re.S)
_NODES = re.compile(r'"(?:class_type|nodes)"\s*:')
_OF_PROGRAMS = {
    "parameters": "Stable Diffusion web UI",
    "prompt": "ComfyUI",
    "workflow": "ComfyUI",
    "invokeai_metadata": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "dream": "InvokeAI",
    "generation_data": "a generator",
}
"""Keys of texts in PNG under which generators leave their parameters; the value must look like some, too."""
_IN_XMP = "XMP "
"""Before the names of XMP's properties, which are no keys of PNG."""
_NAMING = ("software", "creatortool", "credit", "generator", "make", "isft", "tsse", "tenc")
"""Keys that name the program; in other texts a generator's name proves nothing."""
_JOB = re.compile(r"\bJob ID: [0-9a-f-]{36}")


@dataclass(frozen=True)
class Layer:
    """What one layer says."""

    layer: str
    """label, signature, C2PA, IPTC, TC260, parameters, watermark …"""
    judgement: Judgement
    says: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What was found in a file."""

    file: str
    judgement: Judgement
    layers: list[Layer]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


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
    layers = [*_labels(path, data, found, runs, anchors), *_manifest(data, found, anchors), *_foreign(data, found)]
    shown, is_picture = _picture(data), path.suffix.lower() in PICTURES or containers.kind_of(data) in RASTERS
    if is_picture and not (layers or shown or _opens(data)):
        raise BowerbirdError(f"{path} cannot be opened as a picture: it is damaged or too large.")
    if shown is None and is_picture:
        layers.append(Layer("watermark", "unknown", "not looked for: the pixels cannot be decoded"))
    if shown is not None:
        layers += _watermark(shown)
    return layers + [layer for run in runs for look in (_in_words, _in_noise) for layer in look(data, run)]


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
        whole = xmp.record_in(xmp.properties(text.text)) if text.where == "xmp" else _json_record(text)
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


def _json_record(text: Text) -> dict[str, Any]:
    """The label in a text that is JSON, under its own key or as the value of the key AIGC."""
    value = written.parsed(text.text.encode()) if text.text.lstrip().startswith("{") else None
    if not isinstance(value, dict):
        return {}
    if isinstance(value.get(AIGC), dict):
        return {key: value[key] for key in written.KEYS if key in value}
    return {AIGC: value} if text.where == AIGC or {"Label", "ContentProducer"} <= value.keys() else {}


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
    mine, made = manifest.generator == "Bowerbird", any(term in MADE_BY_MODELS for term in terms)
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


def _foreign(data: bytes, found: Found) -> Iterator[Layer]:
    """What the IPTC's property and the parameters of well-known programs say."""
    properties = [one for text in found.texts if text.where == "xmp" for one in xmp.properties(text.text)]
    mine = is_ours(xmp.record_in(properties))
    named = {name.rpartition("}")[2].lower(): value for name, value in properties}
    texts = [Text(_IN_XMP + key, value) for key, value in named.items() if not mine] + _exif(found.exif)
    texts += [text for text in found.texts if text.where != "xmp" and not _json_record(text)]
    if (term := named.get("digitalsourcetype")) and not mine:
        yield _iptc(term)
    for text in texts:
        if layer := _parameters(text):
            yield layer
            return


def _watermark(shown: Any) -> Iterator[Layer]:
    """The pattern in a picture's pixels, that of this user's key and the public one."""
    if min(shown.size) < spectrum.SMALLEST_READ:
        yield Layer("watermark", "unknown", f"pictures below {spectrum.SMALLEST_READ} pixels are too small to show one")
        return
    pixels = spectrum.middle(np.asarray(shown))
    seen = [spectrum.detect(pixels, key) for key in dict.fromkeys((greenlist.own_key(), greenlist.PUBLIC_KEY))]
    best = max(seen)
    details = {"z": round(best.z, 2), "threshold": round(best.threshold, 2)}
    says = f"z = {best.z:.1f}; by chance above {best.threshold:.1f} once in {1 / spectrum.FALSE_ALARMS:,.0f} pictures"
    yield Layer("watermark", "ours" if best.found else "unknown", f"{'' if best.found else 'none: '}{says}", details)


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


def _in_noise(data: bytes, run: Path) -> Iterator[Layer]:
    """The mark in the noise that a run's model would have made a picture of."""
    rundir = RunDir.open(run)
    if containers.kind_of(data) is None or not rundir.model_file.is_file():
        return
    shape, picture = rundir.spec_of(rundir.model_file).target, _picture(data)
    if picture is None or not isinstance(shape, Tensors) or picture.size != shape.shape[:0:-1]:
        return
    model, _ = load_model(run)
    if not isinstance(model, Inverts):
        return
    pixels = np.asarray(picture.convert({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[shape.shape[0]]), np.float32)
    x = torch.from_numpy(pixels / 127.5 - 1).reshape(shape.shape[1], shape.shape[2], -1).permute(2, 0, 1)[None]
    noise = torch.cat([model.noise_of(one) for one in (x, x.flip(-1))])
    largest = max(float(noisemark.z(noise, key).max()) for key in (greenlist.own_key(), greenlist.PUBLIC_KEY))
    found = largest > noisemark.threshold()
    says = f"z = {largest:.1f} with {run}; by chance above {noisemark.threshold():.1f} once in 1,000,000 pictures"
    details = {"run": str(run), "z": round(largest, 2), "threshold": round(noisemark.threshold(), 2)}
    yield Layer("watermark in noise", "ours" if found else "unknown", f"{'' if found else 'none: '}{says}", details)


def _in_words(data: bytes, run: Path) -> Iterator[Layer]:
    """Green tokens in a text, as a run's own tokenizer splits it."""
    rundir = RunDir.open(run)
    if containers.kind_of(data) is not None or not containers.is_text(data) or not rundir.model_file.is_file():
        return
    spec = rundir.spec_of(rundir.model_file)
    if spec.medium != "text" or not isinstance(spec.target, Tokens):
        return
    tokenizer, texts = Tokenizer.from_spec(spec), [str(row["text"]) for row in written.rows(data) if "text" in row]
    text = "\n".join(texts) or data.decode("utf-8", "replace")
    tokens, n_unknown = _tokens(text, tokenizer)
    seen = [greenlist.score(tokens, key) for key in dict.fromkeys((greenlist.own_key(), greenlist.PUBLIC_KEY))]
    best = min(seen, key=lambda score: score.p)
    says = f"{best.green} of {best.tokens} tokens of {run} are green, z = {best.z:.1f}, by chance with p = {best.p:.1g}"
    if best.tokens < greenlist.FEWEST:
        says = f"{best.tokens} tokens are too few; {greenlist.FEWEST} are needed"
    if n_unknown:
        says += f"; {n_unknown:,} of {len(text):,} characters are not in its vocabulary and were left out"
    details = {"run": str(run), "tokens": best.tokens, "green": best.green, "z": round(best.z, 2), "p": best.p}
    details["characters_left_out"] = n_unknown
    yield Layer("watermark in words", "ours" if best.found else "unknown", says, details)


def _tokens(text: str, tokenizer: Tokenizer) -> tuple[torch.Tensor, int]:
    """A text's tokens, and how many characters were left out because the tokenizer does not know them."""
    known = text if _knows(tokenizer, text) else "".join(filter(_known_characters(text, tokenizer).__contains__, text))
    return torch.tensor(tokenizer.encode(known), dtype=torch.long), len(text) - len(known)


def _known_characters(text: str, tokenizer: Tokenizer) -> set[str]:
    return {character for character in set(text) if _knows(tokenizer, character)}


def _knows(tokenizer: Tokenizer, text: str) -> bool:
    try:
        tokenizer.encode(text)
    except BowerbirdError:
        return False
    return True


def _iptc(value: str) -> Layer:
    term = value.removeprefix(SOURCE_TYPES).removeprefix("https://cv.iptc.org/newscodes/digitalsourcetype/").rstrip("/")
    if term in MADE_BY_MODELS:
        return Layer("IPTC", "other", f"{SOURCE_TYPE} is {term}", {SOURCE_TYPE: value[:200]})
    return Layer(
        "IPTC", "unknown", f"claims {SOURCE_TYPE} {term[:80]}, which anybody can write", {SOURCE_TYPE: value[:200]}
    )


def _parameters(text: Text) -> Layer | None:
    """What a generator's own program left behind, if this text is that."""
    if program := _program(text.where.lower(), text.text):
        return Layer("parameters", "other", f"parameters of {program} under {text.where}", {"text": text.text[:500]})
    return None


def _program(key: str, value: str) -> str:
    """The program that wrote a text; "" if nothing in its value says so."""
    if key in _OF_PROGRAMS and _looks_generated(value):
        return _OF_PROGRAMS[key]
    if _PARAMETERS.search(value):
        return "Stable Diffusion web UI"
    if _JOB.search(value):
        return "Midjourney"
    if key.removeprefix(_IN_XMP.lower()) in _NAMING and (match := GENERATORS.search(value)):
        return match[0]
    is_remark = key in ("comment", "description", "icmt", "comm")
    return "Suno" if is_remark and re.search(r"\bmade with suno\b", value, re.I) else ""


def _looks_generated(value: str) -> bool:
    """Whether a text holds two settings of a sampler, the options of one, or the nodes of a graph."""
    settings = {match[1].lower() for match in _SETTING.finditer(value)}
    return len(settings) > 1 or bool(_DREAM.search(value) or _NODES.search(value))


def _exif(raw: bytes) -> list[Text]:
    """The texts of EXIF that programs write their names and parameters into."""
    if not raw:
        return []
    from PIL import ExifTags, Image

    exif = Image.Exif()
    try:
        exif.load(b"Exif\0\0" + raw)
        tags = dict(exif) | dict(exif.get_ifd(ExifTags.IFD.Exif))
    except Exception:  # what is not EXIF raises whatever its bytes lead to: SyntaxError, struct.error, KeyError …
        return []
    names = {0x010E: "description", 0x0131: "software", 0x013B: "artist", 0x010F: "make", 0x9286: "usercomment"}
    return [Text(name, _exif_text(tags[tag])) for tag, name in names.items() if tag in tags]


def _exif_text(value: Any) -> str:
    if isinstance(value, bytes):
        body = value[8:] if value[:8].rstrip(b"\0") in (b"ASCII", b"UNICODE", b"JIS", b"") else value
        return body.decode("utf-16-be" if value[:7] == b"UNICODE" else "utf-8", "replace")
    return str(value)
