"""What the benchmark of a GPU measures, in the order of importance.

A part is the words that `gpu_part.py` is called with:

    places CASE           whether a record's gradient depends on its place in a microbatch, or on the call
    step CASE float32     private and plain steps, beside those of peers
    step CASE bfloat16    the same two in bfloat16, beside the private one in float32
    first CASE            from a process' start to its first step, cold and warm, and the device's peak
    noise NUMBER ...      noise for so many parameters, with words of the device's cipher and of the host's
    quickstart            the quickstart to its first step, cold and warm, and to its end, there and on the CPU
    twin PHANTOMS EPOCHS  the same of ham10000's twin
"""

# As many records as a GPU is given; those of a small run only show that the code works.
_LARGE = {
    "small": "resnet9-32x32x3-b32",
    "resnet9": "resnet9-32x32x3-b512",
    "unet": "unet-64x64x32x1-b8",
    "large": "resnet9-224x224x3-b64",
    "vit": "vit_s_16-224x224x3-b64",
    "wide": "wide_resnet_16_4-32x32x3-b512",
}
_SMALL = {
    "small": "resnet9-16x16x3-b2",
    "resnet9": "resnet9-16x16x3-b4",
    "unet": "unet-16x16x16x1-b1",
    "large": "resnet9-32x32x3-b2",
    "vit": "vit_ti_4-8x8x3-b2",
    "wide": "wide_resnet_16_4-16x16x3-b2",
}


def parts(*, small: bool) -> list[tuple[str, ...]]:
    """The parts; small ones prove on any machine that the code works."""
    case = _SMALL if small else _LARGE
    # ResNet-9, a larger convolutional network, ViT-B; as in the benchmark of noise.
    noise = ("100000", "2400000") if small else ("2400000", "12000000", "86000000")
    return [
        ("step", case["resnet9"], "float32"),
        *(("places", case[name]) for name in ("unet", "small", "vit")),
        ("step", case["small"], "float32"),
        ("noise", *noise),
        ("quickstart",),
        ("first", case["resnet9"]),
        ("step", case["large"], "float32"),
        ("step", case["unet"], "float32"),
        ("step", case["vit"], "float32"),
        # After float32, whose program they find compiled.
        ("step", case["resnet9"], "bfloat16"),
        ("step", case["large"], "bfloat16"),
        ("twin", "340", "1") if small else ("twin", "600", "15"),
        ("step", case["wide"], "float32"),
        *(("step", case[name], "bfloat16") for name in ("vit", "unet", "wide", "small")),
        ("first", case["large"]),
    ]
