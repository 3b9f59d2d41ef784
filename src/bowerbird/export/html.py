"""HTML: one page that works from the disk, with the model, the runtime and the sampler inside, and sends nothing.

The runtime is onnxruntime-web in its smallest form, WebAssembly in one thread, which ``bowerbird data get
onnxruntime-web`` fetches: version 1.18.0, because later ones have only the build for threads, which is a third larger.
Graph and WebAssembly are packed by gzip, which browsers undo, and written as base64.
"""

import base64
import gzip
import html
import json
import re
from pathlib import Path
from typing import Any

from bowerbird.data.fetch import needed
from bowerbird.errors import BowerbirdError
from bowerbird.export.onnx import loaded, sampler_settings, write_graph
from bowerbird.export.target import Parity, Target, Trained, compared_piece, require_one_network
from bowerbird.registry import exports
from bowerbird.spec import Tokens

TEMPLATE = Path(__file__).with_name("demo.html")
RUNTIME = "onnxruntime-web"
JAVASCRIPT, WEBASSEMBLY = "ort.wasm.min.js", "ort-wasm-simd.wasm"


@exports.register("html")
class HTML(Target):
    """index.html."""

    runtime = "onnxruntime, extracted from the page; the page itself was not opened in a browser"
    file = "index.html"

    def require(self, trained: Trained) -> None:
        require_one_network(trained)
        _require_pictures(trained)

    def write(self, trained: Trained, folder: Path) -> None:
        runtime, settings = needed(RUNTIME), sampler_settings(trained)
        name = settings["procedure"]["piece"]
        write_graph(trained.parts[name], folder / "graph.onnx", name, trained.spec)
        graph = folder / "graph.onnx"
        parts = {
            "TITLE": html.escape(trained.run.title or trained.path.name),
            "FOOTER": html.escape(
                f"Exported by Bowerbird from a model trained on {Path(trained.run.data.source).name}."
            ),
            "SETTINGS": json.dumps(settings).replace("<", "\\u003c"),
            "GRAPH": packed(graph.read_bytes()),
            "WASM": packed((runtime / WEBASSEMBLY).read_bytes()),
            "WASM-NAME": WEBASSEMBLY,
            "RUNTIME": (runtime / JAVASCRIPT).read_text(encoding="utf-8").replace("</script", "<\\/script"),
        }
        page = re.sub("@([A-Z-]+)@", lambda m: parts[m[1]], TEMPLATE.read_text(encoding="utf-8"))
        (folder / self.file).write_text(page, encoding="utf-8")
        graph.unlink()

    def compare(self, trained: Trained, folder: Path) -> list[Parity]:
        name: Any = trained.portable.procedure()["piece"]
        graph = folder / "graph.onnx"
        graph.write_bytes(unpacked((folder / self.file).read_text(encoding="utf-8"), "graph"))
        parity = compared_piece(trained, name, loaded(graph))
        graph.unlink()
        return [parity]

    def usage(self, trained: Trained) -> str:
        return f"Open `{self.file}` in a browser, from the disk or from any web server; it needs no network."


def _require_pictures(trained: Trained) -> None:
    if not trained.draws_whole_pictures:
        raise BowerbirdError(
            f"{trained.path} cannot become a page: only models that draw whole pictures can; export it to onnx instead."
        )
    if captions := [name for name, field in trained.spec.given.items() if isinstance(field, Tokens)]:
        raise BowerbirdError(
            f"{trained.path} cannot become a page: the page has no tokenizer for its {captions[0]}; export it to onnx."
        )


def packed(content: bytes) -> str:
    """gzip as base64; equal contents give equal texts."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")


def unpacked(page: str, name: str) -> bytes:
    """The content of the page's script element of that name."""
    found = re.search(rf'id="{name}">([^<]*)<', page)
    assert found is not None
    return gzip.decompress(base64.b64decode(found[1]))
