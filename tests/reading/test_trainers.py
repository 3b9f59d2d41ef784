"""Programs as they are published: training that is only defined, loaders that are driven by hand, packages of old."""

import textwrap
from pathlib import Path

from bowerbird.reading.check import CheckResult, check
from bowerbird.reading.running.launch import Child


def run(child: Child, folder: Path, code: str) -> CheckResult:
    file = folder / "program.py"
    file.write_text(textwrap.dedent(code), encoding="utf-8")
    return check(file, seconds=30.0, child=child)


def test_a_class_that_trains_is_built_and_started(child: Child, tmp_path: Path) -> None:
    result = run(
        child,
        tmp_path,
        """
        import torch
        from torch import nn
        class Classifier:
            def __init__(self, args):
                self.net = nn.Sequential(nn.Conv2d(args.channels, 8, 4, 4), nn.Flatten(), nn.Linear(8 * 8 * 8, 10))
                self.optimizer = torch.optim.SGD(self.net.parameters(), lr=args.lr)
                self.batch_size = 12
            def fit(self, train_loader, epochs):
                for epoch in range(epochs):
                    for x, y in train_loader:
                        assert len(x) == self.batch_size
                        self.update(x, y)
            def update(self, x, y):
                self.optimizer.zero_grad()
                nn.functional.cross_entropy(self.net(x), y).backward()
                self.optimizer.step()
        """,
    )
    assert result.facts.first("run.program")["steps"] >= 4
    assert {f.subject for f in result.facts.of("event.forward")} == {"self.net"}
    assert any(s.name == "Classifier(…).fit(…)" and "(1, 32, 32)" in s.reason for s in result.run.stand_ins)
    assert result.errors == []


def test_a_function_that_trains_is_called_with_what_its_arguments_say(child: Child, tmp_path: Path) -> None:
    code = """
        def train_epoch(model, loader, optimizer, criterion, device, epoch):
            model.train()
            for batch in loader:
                out = model(batch["image"].to(device))
                loss = criterion(out, batch["image"])
                loss.backward()
                optimizer.step()
        """
    result = run(child, tmp_path, code)
    assert [(f.rule, f.line) for f in result.errors] == [("L01", 7)]
    assert (
        run(child, tmp_path, code.replace("optimizer.step()", "optimizer.step(); optimizer.zero_grad()")).errors == []
    )


def test_steps_of_a_lightning_module_are_taken_and_old_names_supplied(child: Child, tmp_path: Path) -> None:
    result = run(
        child,
        tmp_path,
        """
        import torch
        from lightning import LightningModule
        from numpy import product
        from torch import nn
        class Lit(LightningModule):
            def __init__(self, params, **kwargs):
                super().__init__()
                self.save_hyperparameters()
                self.weight = params.train.weight
                self.net = nn.Conv2d(1, self.hparams.params.width, 1)
            def training_step(self, batch, batch_idx):
                x, _ = batch
                loss = self.net(x).square().mean()
                self.log("loss", loss)
                return loss
            def configure_optimizers(self):
                return [torch.optim.SGD(self.parameters(), lr=0.1)], []
            @torch.no_grad()
            def sample(self, z):
                if self.training:
                    raise RuntimeError("in evaluation mode only")
                return self.net(z)
        """,
    )
    assert result.exercised.steps == 3 and result.errors == []
    assert all(result.exercised.functions.values()), result.exercised.functions
    assert any(s.name == "numpy.product" for s in result.run.stand_ins)


def test_loaders_driven_by_hand_and_packages_of_old(child: Child, tmp_path: Path) -> None:
    result = run(
        child,
        tmp_path,
        """
        import torch
        from torchvision import datasets, transforms
        from nowhere import settings
        grey = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
        loader = torch.utils.data.DataLoader(datasets.MNIST("data", transform=grey), batch_size=4)
        batches = iter(loader)
        print(len(batches) // 5, len([batches.next() for _ in range(12)]), len(list(loader)), batches.next()[0].shape)
        device, names = settings()
        print(torch.zeros(1).to(device).device)
        """,
    )
    assert not result.run.exceptions()
    text = result.facts.first("run.output")["text"].splitlines()
    assert text == ["8 12 4 torch.Size([4, 1, 28, 28])", "cpu"]
