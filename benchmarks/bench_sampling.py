"""What the sampler's loop costs beside the network that it calls: 25 steps against 25 bare calls."""

import torch
from paired import compare

from bowerbird.models.flow import FlowConfig, FlowOptions
from bowerbird.nets.unet import UNetConfig
from bowerbird.spec import Spec, Tensors

N, STEPS = 64, 25


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    config = FlowConfig(net=UNetConfig(channels=32, multipliers=(1, 2), patch=2, attention=()), sampler="dpm++2m")
    model = config.build(Spec("image", Tensors((1, 28, 28)))).eval().to(memory_format=torch.channels_last)
    x, t = torch.randn(N, 1, 28, 28), torch.rand(N)

    def network_alone() -> None:
        for _ in range(STEPS):
            model.net(x, t, None)

    ratio = compare(
        f"{STEPS} steps of a U-Net",
        lambda: model.sample(N, options=FlowOptions(steps=STEPS)),
        network_alone,
        "the network alone",
    )
    print(f"overhead of the loop: {100 * (1 / ratio - 1):.1f} %")


if __name__ == "__main__":
    main()
