"""The autoencoder: an encoder and a decoder under these names."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Autoencoder"]


class Autoencoder(nn.Module):
    r"""A network that is to give back its input, through a code: $\hat x = g(f(x))$.

    Parameters are called "encoder...." and "decoder....", by which
    `transfer.reuse(params, into=model, match=transfer.rename({"body": "encoder"}))` finds those
    of a model's body. What is not called so, the decoder, is dropped there.

    Args:
        encoder: $f$, from an input to its code.
        decoder: $g$, from a code to something of the input's shape; end it with `nn.Unflatten` if
            the encoder flattens. For `greedy_layerwise` both are `nn.Sequential` of as many
            stages, the decoder's last undoing the encoder's first.

    Raises:
        TypeError: one of them is no `nn.Module`.

    Example:
        >>> import torch
        >>> net = Autoencoder(nn.Sequential(nn.Linear(6, 2), nn.Tanh()), nn.Linear(2, 6))
        >>> net(torch.ones(5, 6)).shape
        torch.Size([5, 6])
        >>> [name for name, _ in net.named_parameters()]
        ['encoder.0.weight', 'encoder.0.bias', 'decoder.weight', 'decoder.bias']

    References:
        Hinton, Salakhutdinov (2006), "Reducing the dimensionality of data with neural networks".
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        for name, part in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(part, nn.Module):
                raise TypeError(f"`{name}` must be an nn.Module, got {part!r}")
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        """Encode and decode."""
        output: Tensor = self.decoder(self.encoder(x))
        return output
