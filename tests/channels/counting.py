"""What a network costs by PyTorch's own counter."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from pfs_core.channels import Cost


def counted(model, input_shape):
    """MACs (two FLOPs each) of one image in evaluation mode, and the sum of parameter sizes."""
    params = sum(p.numel() for p in model.parameters())
    on_meta = model.to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        on_meta(torch.empty(1, *input_shape, device="meta"))
    return Cost(counter.get_total_flops() // 2, params)
