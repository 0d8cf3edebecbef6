"""The peer of the step benchmark, run by an interpreter that has torch and opacus.

`python peer_torch.py CASE PART` builds the case's network once for each variant and runs one step of each. PART is
trained, as by dpmed's `model.train_only`: `all`, `lora`, `norms` or `head`. It then prints one JSON line: the number of
trained parameters, the seconds of each variant's first step, and which variants do not run and why. For each line on
its input, a variant's name, it runs one step and prints its seconds. It imports nothing of dpmed.

The networks are dpmed's, without centred filters, which have no weights of their own. The optimizer is plain SGD; that
of dpmed (Nadam) does more.
"""

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from opacus.grad_sample import get_gsm_class
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional

CLASSES, RATE, NORM, NOISE = 10, 0.1, 1.0, 1.0
RANK = 8
MODES = {"opacus hooks": "hooks", "opacus functorch": "functorch", "opacus ew": "ew"}


def norm(channels: int) -> nn.Module:
    """Group norm of at most 32 groups."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def unit(convolution: type[nn.Module], channels_in: int, channels_out: int) -> nn.Module:
    """Convolution, group norm, Mish."""
    filters = convolution(channels_in, channels_out, 3, padding=1, bias=False)
    return nn.Sequential(filters, norm(channels_out), nn.Mish())


class Resnet9(nn.Module):
    """ResNet-9 of 64, 128, 256 and 256 channels, with the norm after each residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(unit(nn.Conv2d, 3, 64), unit(nn.Conv2d, 64, 128), nn.MaxPool2d(2))
        self.first = nn.Sequential(unit(nn.Conv2d, 128, 128), unit(nn.Conv2d, 128, 128))
        self.first_norm = norm(128)
        later = [unit(nn.Conv2d, 128, 256), nn.MaxPool2d(2), unit(nn.Conv2d, 256, 256), nn.MaxPool2d(2)]
        self.later = nn.Sequential(*later)
        self.second = nn.Sequential(unit(nn.Conv2d, 256, 256), unit(nn.Conv2d, 256, 256))
        self.second_norm = norm(256)
        self.head = nn.Linear(4 * 256, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.early(x)
        x = self.later(self.first_norm(x + self.first(x)))
        x = self.second_norm(x + self.second(x))
        return self.head(functional.adaptive_avg_pool2d(x, 2).flatten(1))


class WideBlock(nn.Module):
    """Norm, Mish and convolution, twice, beside a shortcut of the activated input where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(norm(channels_in), nn.Mish())
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            norm(channels_out),
            nn.Mish(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        )
        changes = channels_in != channels_out or stride != 1
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways."""
        y = self.before(x)
        return (x if self.shortcut is None else self.shortcut(y)) + self.body(y)


class WideResnet(nn.Module):
    """WideResNet-16-4."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
        before = 16
        for after, stride in ((64, 1), (128, 2), (256, 2)):
            layers += [WideBlock(before, after, stride), WideBlock(after, after, 1)]
            before = after
        self.layers = nn.Sequential(*layers, norm(before), nn.Mish())
        self.head = nn.Linear(before, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.layers(x).mean((2, 3)))


class Unet(nn.Module):
    """3D U-Net of five levels."""

    def __init__(self) -> None:
        super().__init__()
        channels = (16, 32, 64, 128, 256)
        pairs = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.down = nn.ModuleList(self._double(a, b) for a, b in zip((1, *channels[:-1]), channels, strict=True))
        self.pool = nn.MaxPool3d(2)
        self.up = nn.ModuleList(nn.ConvTranspose3d(a, b, 2, stride=2) for a, b in pairs)
        self.merge = nn.ModuleList(self._double(2 * b, b) for _, b in pairs)
        self.head = nn.Conv3d(channels[0], CLASSES, 1)

    @staticmethod
    def _double(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(unit(nn.Conv3d, channels_in, channels_out), unit(nn.Conv3d, channels_out, channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every voxel."""
        kept = []
        for level in self.down[:-1]:
            x = level(x)
            kept.append(x)
            x = self.pool(x)
        x = self.down[-1](x)
        for up, merge, beside in zip(self.up, self.merge, reversed(kept), strict=True):
            x = merge(torch.cat([beside, up(x)], 1))
        return self.head(x)


CASES: dict[str, tuple[type[nn.Module], tuple[int, ...], int]] = {
    "resnet9-32x32x3-b32": (Resnet9, (3, 32, 32), 32),
    "wide_resnet_16_4-32x32x3-b32": (WideResnet, (3, 32, 32), 32),
    "unet-64x64x32x1-b2": (Unet, (1, 64, 64, 32), 2),
    "resnet9-224x224x3-b4": (Resnet9, (3, 224, 224), 4),
}


class Adapted(nn.Module):
    """A frozen convolution with a low-rank adapter beside it, as dpmed's: one of its own shape, then one of side 1."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer
        size, places = layer.kernel_size, layer.padding
        self.down = nn.Conv2d(layer.in_channels, RANK, size, stride=layer.stride, padding=places, bias=False)
        self.up = nn.Conv2d(RANK, layer.out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Both together."""
        return self.layer(x) + self.up(self.down(x)) / RANK


def train_only(model: nn.Module, part: str) -> nn.Module:
    """The network with all frozen but a part and the head."""
    if part == "all":
        return model
    for weight in model.parameters():
        weight.requires_grad_(False)
    model.head.requires_grad_(True)
    for module in list(model.modules()):
        if part == "norms" and isinstance(module, nn.GroupNorm):
            module.requires_grad_(True)
        for name, layer in list(module.named_children()):
            if part == "lora" and isinstance(layer, nn.Conv2d):
                setattr(module, name, Adapted(layer))
    return model


class RecordLoss(nn.Module):
    """Cross entropy, the mean over a record's voxels; `reduction` is what ghost clipping sets and reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reduction = "mean"

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """One value per record, or their mean."""
        losses = functional.cross_entropy(logits, targets, reduction="none")
        losses = losses.flatten(1).mean(1) if losses.ndim > 1 else losses
        return losses.mean() if self.reduction == "mean" else losses


def build(variant: str, network: type[nn.Module], part: str, x: Tensor, y: Tensor) -> Callable[[], None]:
    """A function that runs one step of the variant, with a network of its own."""
    model, loss = train_only(network(), part), RecordLoss()
    optimizer: Any = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], RATE)
    private = {"noise_multiplier": NOISE, "max_grad_norm": NORM, "expected_batch_size": len(x)}
    if variant == "opacus ghost":
        model = GradSampleModuleFastGradientClipping(
            model, batch_first=True, loss_reduction="mean", max_grad_norm=NORM, use_ghost_clipping=True
        )
        optimizer = DPOptimizerFastGradientClipping(optimizer, **private)
        loss = DPLossFastGradientClipping(model, optimizer, loss, "mean")
    elif variant in MODES:
        model = get_gsm_class(MODES[variant])(model, batch_first=True, loss_reduction="mean")
        optimizer = DPOptimizer(optimizer, **private)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    return step


def seconds(call: Callable[[], None]) -> float:
    """What one call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main() -> None:
    """Build, say what there is, and answer until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing that a library prints may pass for an answer
    warnings.filterwarnings("ignore")
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    network, shape, batch = CASES[sys.argv[1]]
    part = sys.argv[2]
    x = torch.randn(batch, *shape)
    y = torch.randint(0, CLASSES, (batch, *(shape[1:] if network is Unet else ())))
    steps, first, failed = {}, {}, {}
    for variant in ("torch nonprivate", *MODES, "opacus ghost"):
        try:
            step = build(variant, network, part, x, y)
            first[variant] = seconds(step)
            steps[variant] = step
        except Exception as error:  # a mode that does not know a layer says so in many ways
            failed[variant] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    trained = train_only(network(), part)
    parameters = sum(weight.numel() for weight in trained.parameters() if weight.requires_grad)
    print(json.dumps({"parameters": parameters, "first": first, "failed": failed}), file=answers, flush=True)
    for line in sys.stdin:
        print(seconds(steps[line.strip()]), file=answers, flush=True)


if __name__ == "__main__":
    main()
