"""The page in chromium, the pipeline of diffusers, the network of transformers: a flow with labels in each."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from made import made

from bowerbird import api
from bowerbird.data import fetch, tokenizers
from bowerbird.data.tokenizers import SPECIALS
from bowerbird.errors import BowerbirdError
from bowerbird.export.html import RUNTIME, unpacked
from bowerbird.export.target import Trained, examples
from bowerbird.models.autoregressive import AutoregressiveConfig
from bowerbird.models.flow import FlowConfig
from bowerbird.models.latent import LatentConfig
from bowerbird.models.vae import VAEConfig
from bowerbird.nets.dit import DiTConfig
from bowerbird.nets.grid import GridConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.spec import Spec, Tensors, Tokens

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DIT = DiTConfig(n_layer=1, n_head=2, n_embd=16)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("runs") / "flow", FlowConfig(DIT, sample_steps=3, guidance=2.0))


@pytest.fixture(scope="module")
def page(flow: Path) -> Path:
    if fetch.locate(RUNTIME) is None:
        pytest.skip(f"needs the browser's runtime: bowerbird data get {RUNTIME}")
    return api.export(flow, "html") / "index.html"


def test_a_page_makes_pictures_in_a_browser_and_asks_for_nothing(flow, page, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'bowerbird[dev]'")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    piece, complaints, requests = Trained(flow).parts["denoiser"], [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.resolve().as_uri())
        playwright.expect(tab.locator("#status")).to_contain_text(re.compile("Done in"), timeout=120_000)
        assert tab.locator("#pictures canvas").count() == 8
        tab.locator("#given-label").select_option("b")
        tab.locator("#n").fill("2")
        tab.get_by_role("button", name="Make").click()
        playwright.expect(tab.locator("#pictures canvas")).to_have_count(2, timeout=60_000)
        for n in (1, 5):
            tensors = examples(piece.inputs, n)
            feeds = {
                name: {"data": x.flatten().tolist(), "dims": list(x.shape), "whole": not x.is_floating_point()}
                for name, x in zip(piece.inputs, tensors, strict=True)
            }
            found, dims = tab.evaluate(IN_THE_PAGE, feeds)
            difference = torch.tensor(found).view(dims) - piece.module(*tensors)
            assert float(difference.abs().max()) <= 1e-5
        browser.close()
    assert complaints == [] and all(url.startswith(("file:", "blob:")) for url in requests)


IN_THE_PAGE = """async feeds => {
  for (const f of Object.values(feeds))
    f.data = f.whole ? BigInt64Array.from(f.data.map(BigInt)) : Float32Array.from(f.data);
  const out = await network(feeds);
  return [Array.from(out.data), out.dims];
}"""


def test_a_page_holds_everything(page):
    text = page.read_text(encoding="utf-8")
    assert unpacked(text, "wasm")[:4] == b"\0asm" and len(unpacked(text, "graph")) > 1000
    assert not re.search(r"@[A-Z]+@", text) and "connect-src blob:" in text


def test_what_cannot_become_a_page(tmp_path):
    words = Spec("text", Tokens(9, 8, 0, 1, 2, (0,)))
    run = made(tmp_path / "run", AutoregressiveConfig(TransformerConfig(n_layer=1, n_head=2, n_embd=16)), words)
    with pytest.raises(BowerbirdError, match="cannot become a page"):
        api.export(run, "html")
    with pytest.raises(BowerbirdError, match="no form in diffusers"):
        api.export(run, "diffusers")
    assert not (run / "export" / "html").exists()


def test_diffusers_draws_the_same_pictures(flow):
    diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install 'bowerbird[hub]'")
    folder = api.export(flow, "diffusers")  # compares network and pipeline with the model
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    made = [pipe(3, given={"label": "b"}, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert [image.size for image in made[0].images] == [(8, 8)] * 3
    assert all(a.tobytes() == b.tobytes() for a, b in zip(made[0].images, made[1].images, strict=True))
    assert "bowerbird" not in (folder / "network" / "network.py").read_text().replace("written by Bowerbird", "")


def test_diffusers_draws_codes_from_captions_and_decodes_them(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install 'bowerbird[hub]'")
    letters = tokenizers.chosen("char", ["abcdefgh ij\n"], [], 100, SPECIALS)
    words = Tokens(letters.vocab_size, 24, letters.bos, letters.eos, letters.pad, (letters.bos,))
    spec = Spec("image", Tensors((1, 8, 8)), {"caption": words}, codec=letters.to_json())
    codes = VAEConfig(GridConfig(channels=8, multipliers=(1,), patch=2), n_latent=64, conditional=False)
    prior = FlowConfig(DiTConfig(n_layer=1, n_head=2, n_embd=16, patch=2), sample_steps=4, guidance=2.0)
    run = made(tmp_path / "run", LatentConfig(codes, prior), spec)
    folder = api.export(run, "diffusers")  # compares both networks and the pipeline with the model
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    texts = ["bad", "bad", "a hedge"]
    x = pipe(3, given={"caption": texts}, noise=lambda *shape: torch.ones(3, *shape), output_type="pt").images
    assert x.shape == (3, 1, 8, 8) and (x[0] == x[1]).all() and (x[0] != x[2]).any()
    with pytest.raises(BowerbirdError, match="samples with several networks"):
        api.export(run, "html")


def test_transformers_loads_the_network(flow):
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'bowerbird[hub]'")
    folder = api.export(flow, "huggingface")
    network = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    piece = Trained(flow).parts["denoiser"]
    tensors = examples(piece.inputs, 2)
    assert float((network(*tensors) - piece.module(*tensors)).abs().max()) <= 1e-5
    assert {file.name for file in folder.iterdir()} >= {"config.json", "model.safetensors", "README.md", "sampler.json"}
