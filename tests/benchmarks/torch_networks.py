"""The peer of the benchmark of public weights, run by an interpreter that has torch, torchvision and timm.

`python torch_networks.py NAME WEIGHTS ANSWERS` makes the network NAME with random weights and running statistics,
and writes its state dict and its logits of two random images. NAME `positions` makes a tiny vision transformer instead,
and the answers are timm's positions for other sizes. Nothing is downloaded.
"""

import sys

import numpy as np
import torch

# A torchvision whose compiled part does not fit this torch lacks operations that these networks do not need.
for _name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def make(name: str) -> torch.nn.Module:
    """A network of `torchvision.NAME` or `timm.NAME`."""
    source, _, kind = name.partition(".")
    if source == "timm":
        import timm

        return timm.create_model(kind, pretrained=False)
    import torchvision

    return getattr(torchvision.models, kind)(weights=None)


def positions() -> None:
    """timm's interpolation of 14 x 14 positions to fewer and to more."""
    from timm.layers import resample_abs_pos_embed
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    network = VisionTransformer(img_size=224, patch_size=16, embed_dim=48, depth=1, num_heads=3, num_classes=10)
    weights = network.state_dict()
    weights["pos_embed"].normal_()
    answers = {}
    for side in (4, 8, 20):
        new = resample_abs_pos_embed(weights["pos_embed"], [side, side], num_prefix_tokens=1)
        answers[str(side)] = new[0, 1:].reshape(side, side, -1).numpy()
    np.savez(sys.argv[2], **{name: values.numpy() for name, values in weights.items()})
    np.savez(sys.argv[3], **answers)


def main() -> None:
    """Weights far from their first values, so that nothing that is wrong multiplies by zero."""
    if sys.argv[1] == "positions":
        return positions()
    torch.manual_seed(0)
    network = make(sys.argv[1]).eval()
    with torch.no_grad():
        for name, values in network.state_dict().items():
            if name.endswith("running_var"):
                values.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                values.normal_(0.0, 0.3)
            elif values.ndim == 1:
                values.add_(0.1 * torch.randn_like(values))
            elif name in ("fc.weight", "head.weight", "heads.head.weight"):
                values.normal_(0.0, 0.03)
        images = torch.randn(2, 3, 224, 224)
        logits = network(images)
    arrays = {name: values.numpy() for name, values in network.state_dict().items()}
    np.savez(sys.argv[2], **arrays)
    np.savez(sys.argv[3], images=images.permute(0, 2, 3, 1).numpy(), logits=logits.numpy())
    return None


if __name__ == "__main__":
    main()
