"""The peer of the step benchmark, run by an interpreter that has torch and opacus.

`python peer_torch.py CASE PART DEVICE` builds the case's network once for each variant and runs one step of each. CASE
is NETWORK-SHAPE-bBATCH, channels last. PART is trained, as by dpmed's `model.train_only`: `all`, `lora`, `norms` or
`head`. DEVICE is `cpu` or `gpu`. It then prints one JSON line: the number of trained parameters, the seconds of each
variant's first step, and which variants do not run and why. For each line on its input, a variant's name, it runs one
step and prints its seconds. It imports nothing of dpmed.

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
from functools import partial
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


class Tokens(nn.Module):
    """Patches as tokens behind one for the class, with learned positions.

    Class token and positions are embeddings: Opacus' modes do not all know gradients of plain arrays.
    """

    def __init__(self, patches: int, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.patches = nn.Linear(side * side * 3, width)
        self.first = nn.Embedding(1, width)
        self.positions = nn.Embedding(1 + patches, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 1 + patch, width)`."""
        tokens = self.patches(functional.unfold(x, self.side, stride=self.side).transpose(1, 2))
        places = torch.arange(1 + tokens.shape[1], device=x.device).repeat(len(x), 1)
        return torch.cat([self.first(places.new_zeros(len(x), 1)), tokens], 1) + self.positions(places)


class TransformerBlock(nn.Module):
    """Attention, then two layers on each token, both behind a norm and beside a skip connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """The tokens after the block."""
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        answers = functional.scaled_dot_product_attention(queries, keys, values)
        x = x + self.projection(answers.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Vision transformer of twelve blocks for square images."""

    def __init__(self, image: int, *, patch: int, width: int, heads: int) -> None:
        super().__init__()
        self.tokens = Tokens((image // patch) ** 2, width, patch)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(12)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, from the class token."""
        return self.head(self.norm(self.blocks(self.tokens(x))[:, 0]))


# A function of the image's side, which only positions depend on.
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet9": lambda _: Resnet9(),
    "wide_resnet_16_4": lambda _: WideResnet(),
    "vit_ti_4": partial(Vit, patch=4, width=192, heads=3),
    "vit_s_16": partial(Vit, patch=16, width=384, heads=6),
    "unet": lambda _: Unet(),
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


def batch_of(case: str) -> tuple[Tensor, Tensor]:
    """Random records, channels first, and their targets."""
    network, shape, batch = case.split("-")
    *places, channels = map(int, shape.split("x"))
    count = int(batch.removeprefix("b"))
    x = torch.randn(count, channels, *places)
    return x, torch.randint(0, CLASSES, (count, *(places if network == "unet" else ())))


def build(variant: str, model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """A function that runs one step of the variant, on the device of `x`."""
    model, loss = model.to(x.device), RecordLoss()
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
        if x.is_cuda:
            torch.cuda.synchronize()  # a GPU computes behind the program's back

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
    # As XLA does unasked: products of float32 in TF32, and convolutions by the algorithm that was fastest when tried.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
    case, part, device = sys.argv[1:]
    x, y = batch_of(case)
    make = partial(NETWORKS[case.partition("-")[0]], x.shape[-1])
    steps, first, failed = {}, {}, {}
    for variant in ("torch nonprivate", *MODES, "opacus ghost"):
        try:
            place = torch.device("cuda" if device == "gpu" else device)
            step = build(variant, train_only(make(), part), x.to(place), y.to(place))
            first[variant] = seconds(step)
            steps[variant] = step
        except Exception as error:  # a mode that does not know a layer, or a torch without the device: in many ways
            failed[variant] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    trained = train_only(make(), part)
    parameters = sum(weight.numel() for weight in trained.parameters() if weight.requires_grad)
    print(json.dumps({"parameters": parameters, "first": first, "failed": failed}), file=answers, flush=True)
    for line in sys.stdin:
        print(seconds(steps[line.strip()]), file=answers, flush=True)


if __name__ == "__main__":
    main()
