"""The backbone of a network: everything but the last linear layer."""

from collections.abc import Iterator

from torch import nn


def backbone_of(network: nn.Module) -> nn.ModuleList:
    """Return the parts of a network without its last linear layer, or without its last layer if none is linear.

    The parts are the network's own modules and parameters, not copies.
    """
    layers = [module for module in network.modules() if next(module.parameters(recurse=False), None) is not None]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    head = (linear or layers)[-1]

    def parts(module: nn.Module) -> Iterator[nn.Module]:
        if all(each is not head for each in module.modules()):
            yield module
        elif module is not head:
            own = nn.Module()  # an nn.ParameterList would be taken for a list of modules
            for name, parameter in module.named_parameters(recurse=False):
                own.register_parameter(name, parameter)
            yield own
            for child in module.children():
                yield from parts(child)

    return nn.ModuleList(parts(network))
