"""What other generators leave in files: the IPTC's property, and the parameters that their programs write down."""

import re
from collections.abc import Iterator
from typing import Any

from bowerbird.provenance import written, xmp
from bowerbird.provenance.rasters import Found, Text
from bowerbird.provenance.record import SOURCE_TYPE, SOURCE_TYPES, is_ours
from bowerbird.provenance.verdict import Layer

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


def foreign(found: Found) -> Iterator[Layer]:
    """What the IPTC's property and the parameters of well-known programs say."""
    properties = [one for text in found.texts if text.where == "xmp" for one in xmp.properties(text.text)]
    mine = is_ours(xmp.record_in(properties))
    named = {name.rpartition("}")[2].lower(): value for name, value in properties}
    texts = [Text(_IN_XMP + key, value) for key, value in named.items() if not mine] + _exif(found.exif)
    texts += [text for text in found.texts if text.where != "xmp" and not written.labelled_in(text)]
    if (term := named.get("digitalsourcetype")) and not mine:
        yield _iptc(term)
    for text in texts:
        if layer := _parameters(text):
            yield layer
            return


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
