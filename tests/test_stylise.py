"""Style transfer: Gram matrices, the search, and what a user may hand in."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bowerbird import api, cli
from bowerbird.data import fetch
from bowerbird.editing import stylise as module
from bowerbird.editing.stylise import STRIDE, apart, features, fitted, gram, stylised
from bowerbird.errors import BowerbirdError
from bowerbird.metrics.efficientnet import EfficientNetLite0


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    """Random weights of a sensible size: they see textures too."""
    torch.manual_seed(0)
    net = EfficientNetLite0()
    for name, p in net.named_parameters():
        torch.nn.init.zeros_(p) if name.endswith("bias") else torch.nn.init.normal_(p, std=(2 / p[0].numel()) ** 0.5)
    return net.eval().requires_grad_(False)


def checks(side: int = 64, period: int = 8) -> torch.Tensor:
    grid = torch.arange(side) // (period // 2) % 2
    return (grid[:, None] ^ grid[None]).float().expand(3, -1, -1).clone()


def disc(side: int = 64) -> torch.Tensor:
    at = torch.linspace(-1, 1, side)
    inside = (at[:, None] ** 2 + at[None] ** 2 < 0.4).float()
    return torch.stack([inside, 0.3 + 0.2 * inside, 1 - inside])


def test_a_gram_matrix_says_how_channels_go_together_and_not_where() -> None:
    maps = torch.randn(1, 3, 4, 5)
    by_hand = torch.einsum("nchw,ndhw->ncd", maps, maps) / 20
    torch.testing.assert_close(gram(maps), by_hand)
    torch.testing.assert_close(gram(maps.flip(3).transpose(2, 3)), by_hand)


def test_the_style_comes_nearer_and_strength_trades_it_for_the_content(network: EfficientNetLite0) -> None:
    content, style = disc(), checks()

    def far(x: torch.Tensor) -> tuple[float, float]:
        layer = module.CONTENT_LAYER
        maps, aim = features(network, x), features(network, style)
        styles = [float(apart(gram(maps[k]), gram(aim[k]))) for k in module.STYLE_LAYERS]
        return sum(styles) / len(styles), float(apart(maps[layer], features(network, content)[layer]))

    before, _ = far(content)
    (weak, near), (strong, away) = (
        far(stylised(content, style, network, strength=strength, iterations=12)) for strength in (1e-4, 10.0)
    )
    assert strong < 0.5 * before and strong < weak and near < away


def test_sides_are_fitted_in_proportion() -> None:
    assert fitted((640, 480), 256) == (256, 192)
    assert fitted((10, 1000), 256) == (STRIDE, 256)


def test_the_command_writes_a_labelled_picture_beside_its_content(
    network: EfficientNetLite0, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(EfficientNetLite0, "load", lambda _: network)
    monkeypatch.setattr(module, "needed", lambda _: tmp_path)
    for name, size in (("house", (90, 60)), ("waves", (40, 40))):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    asked = ["stylise", f"{tmp_path}/house.png", f"{tmp_path}/waves.png", "--size", "64", "--iterations", "2"]
    assert cli.main([*asked, "--out", str(tmp_path / "out")]) == 0
    written = Path(capsys.readouterr().out.strip())
    assert written == tmp_path / "out" / "house.png" and Image.open(written).size == (64, 48)
    assert api.verify(written).judgement == "claimed"
    refused = {
        "holds 3 pictures; name one": [tmp_path, tmp_path / "waves.png"],
        "does not exist; give a picture": [tmp_path / "no.png", tmp_path / "waves.png"],
        "size = 8 must lie in [64, 1024]": [tmp_path / "house.png", tmp_path / "waves.png", "--size", "8"],
    }
    for sentence, words in refused.items():
        assert cli.main(["stylise", *map(str, words)]) == 2
        assert sentence in capsys.readouterr().err


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "locate", lambda _: None)
    with pytest.raises(BowerbirdError, match="run: bowerbird data get efficientnet-lite0"):
        api.stylise(tmp_path / "a.png", tmp_path / "b.png")
