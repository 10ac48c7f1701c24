"""Batch normalisation without scale and shift, an option of the models whose originals have none (Rare Gems)."""

from torch import nn


def without_scale_and_shift(network: nn.Module) -> nn.Module:
    """Take scale and shift from every batch normalisation, in place; return the same network.

    What is left is what torch makes with affine=False: running statistics, no parameter.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.affine = False
            module.register_parameter("weight", None)
            module.register_parameter("bias", None)
    return network
