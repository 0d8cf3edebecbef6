"""Tiny files of weights by the names of torchvision and timm, made up."""

import numpy as np

CHANNELS = (2, 2, 2, 4)


def resnet_arrays(rng, *, outputs=3, bottleneck=False, depths=(2, 2, 2, 2)):
    """Written down from torchvision's constructors, in their order."""
    found, wide = {}, 4 if bottleneck else 1

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{part}"] = rng.uniform(0.5, 1.5, channels)
        found[f"{name}.num_batches_tracked"] = np.array(7)

    def convolution(name, after, before, side):
        found[f"{name}.weight"] = rng.normal(size=(after, before, side, side))

    convolution("conv1", CHANNELS[0], 3, 7)
    norm("bn1", CHANNELS[0])
    before = CHANNELS[0]
    for stage, (channels, depth) in enumerate(zip(CHANNELS, depths, strict=True), start=1):
        for place in range(depth):
            block = f"layer{stage}.{place}"
            sides = (1, 3, 1) if bottleneck else (3, 3)
            inner = before
            for unit, side in enumerate(sides, start=1):
                after = channels * wide if unit == len(sides) else channels
                convolution(f"{block}.conv{unit}", after, inner, side)
                norm(f"{block}.bn{unit}", after)
                inner = after
            if before != inner or (stage > 1 and place == 0):
                convolution(f"{block}.downsample.0", inner, before, 1)
                norm(f"{block}.downsample.1", inner)
            before = inner
    found["fc.weight"], found["fc.bias"] = rng.normal(size=(outputs, before)), rng.normal(size=outputs)
    return {name: np.asarray(v, np.float32 if v.dtype.kind == "f" else np.int64) for name, v in found.items()}


def vit_arrays(rng, *, torchvision=False, side=4, width=8):
    names = {
        "cls_token": ("class_token", (1, 1, width)),
        "pos_embed": ("encoder.pos_embedding", (1, 1 + side * side, width)),
        "patch_embed.proj.weight": ("conv_proj.weight", (width, 3, 4, 4)),
        "patch_embed.proj.bias": ("conv_proj.bias", (width,)),
        "norm.weight": ("encoder.ln.weight", (width,)),
        "norm.bias": ("encoder.ln.bias", (width,)),
        "head.weight": ("heads.head.weight", (3, width)),
        "head.bias": ("heads.head.bias", (3,)),
    }
    layer = "encoder.layers.encoder_layer_0."
    for theirs, public, shape in (
        ("norm1.weight", "ln_1.weight", (width,)),
        ("norm1.bias", "ln_1.bias", (width,)),
        ("attn.qkv.weight", "self_attention.in_proj_weight", (3 * width, width)),
        ("attn.qkv.bias", "self_attention.in_proj_bias", (3 * width,)),
        ("attn.proj.weight", "self_attention.out_proj.weight", (width, width)),
        ("attn.proj.bias", "self_attention.out_proj.bias", (width,)),
        ("norm2.weight", "ln_2.weight", (width,)),
        ("norm2.bias", "ln_2.bias", (width,)),
        ("mlp.fc1.weight", "mlp.0.weight", (4 * width, width)),
        ("mlp.fc1.bias", "mlp.0.bias", (4 * width,)),
        ("mlp.fc2.weight", "mlp.3.weight", (width, 4 * width)),
        ("mlp.fc2.bias", "mlp.3.bias", (width,)),
    ):
        names[f"blocks.0.{theirs}"] = (layer + public, shape)
    arrays = {theirs: (public, rng.normal(size=shape).astype(np.float32)) for theirs, (public, shape) in names.items()}
    return {(public if torchvision else theirs): array for theirs, (public, array) in arrays.items()}


def saved(path, arrays):
    np.savez(path, **arrays)
    return path
