"""A training step of our U-Net against those that people use, in operations per CPU second.

    python benchmarks/bench_unet.py --lucidrains FOLDER     a checkout of denoising-diffusion-pytorch; needs einops
    python benchmarks/bench_unet.py --diffusers             needs diffusers

The networks differ in their layers, so equal work is made equal by counting: all have about two million parameters,
torch counts the operations of a forward and backward pass, and what is compared is operations per CPU second.  The
peers run in fp32 as they come; ours once in fp32 and, where the machine gains from it, once in bf16.
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bowerbird.machine import bf16_is_faster, keep_freed_memory
from bowerbird.nets.unet import UNetConfig
from bowerbird.spec import Spec, Tensors

BATCH, SIDE = 32, 32

Step = Callable[[], None]


def ours() -> nn.Module:
    config = UNetConfig(channels=48, multipliers=(1, 2, 2), blocks=2)
    net = config.denoiser(Spec("image", Tensors((1, SIDE, SIDE))), 1)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def lucidrains(folder: Path) -> nn.Module:
    """Their ``Unet``; what else its file imports is not needed to run it."""
    package = "denoising_diffusion_pytorch"
    bare = ModuleType(package)  # without its __init__, which imports all the rest
    bare.__path__ = [str(folder / package)]
    unused = {name: MagicMock() for name in ("torchvision", "accelerate", "ema_pytorch")}
    sys.modules |= {package: bare} | unused
    file = importlib.import_module(f"{package}.{package}")
    for name in unused:
        del sys.modules[name]
    return file.Unet(dim=32, channels=1, dim_mults=(1, 2, 4))


def diffusers() -> nn.Module:
    from diffusers import UNet2DModel

    class Plain(UNet2DModel):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward(x, t).sample

    return Plain(
        sample_size=SIDE, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def training_step(net: nn.Module, bf16: bool, *more: None) -> Step:
    x, t = torch.randn(BATCH, 1, SIDE, SIDE), torch.rand(BATCH)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = net(x, t, *more)
        out.float().square().mean().backward()
        net.zero_grad()

    return step


def count(step: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def cpu_seconds(step: Step) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def compare(name: str, net: nn.Module, bf16: bool, peer_name: str, peer: nn.Module, pairs: int) -> None:
    """Prints operations per second of both and the median ratio of pairs that run one after the other."""
    steps = training_step(net, bf16, None), training_step(peer, False)
    work = [count(step) for step in steps]
    pace = [[n / cpu_seconds(step) for n, step in zip(work, steps, strict=True)] for _ in range(pairs)]
    ratios = [a / b for a, b in pace]
    sizes = [sum(p.numel() for p in one.parameters()) / 1e6 for one in (net, peer)]
    print(
        f"{name}: {statistics.median(a for a, _ in pace) / 1e9:.0f} GFLOP/s ({sizes[0]:.1f} M parameters, "
        f"{work[0] / 1e9:.0f} GFLOP a step), {statistics.median(ratios):.2f} times {peer_name}'s "
        f"{statistics.median(b for _, b in pace) / 1e9:.0f} ({sizes[1]:.1f} M, {work[1] / 1e9:.0f}), "
        f"{min(ratios):.2f} to {max(ratios):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lucidrains", type=Path)
    parser.add_argument("--diffusers", action="store_true")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    peers = {"lucidrains": lucidrains(options.lucidrains)} if options.lucidrains else {}
    peers |= {"diffusers": diffusers()} if options.diffusers else {}
    if not peers:
        print("bench_unet: no peer; name one with --lucidrains FOLDER or --diffusers")
    net = ours()
    for peer_name, peer in peers.items():
        for bf16 in [False, True][: 2 if bf16_is_faster("cpu") else 1]:
            compare(f"U-Net in {'bf16' if bf16 else 'fp32'}", net, bf16, peer_name, peer, options.pairs)


if __name__ == "__main__":
    main()
