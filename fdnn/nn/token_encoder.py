"""The encoder of a small Transformer: tokens in, one vector for each of them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fdnn import initializers
from fdnn.types import Initializer

__all__ = ["TokenEncoder"]


class TokenEncoder(nn.Module):
    r"""Token and position embeddings, and a stack of `nn.TransformerEncoderLayer`.

    $h_0 = \mathrm{dropout}(E_{t} + P)$, $h_i = \mathrm{layer}_i(h_{i-1})$, and the output is the
    layer norm of the last $h_i$. The layers are pre-norm, which trains without a warmup; every
    token attends to every one that is no padding. A head on it makes a language model
    (`nn.Linear(d_model, num_embeddings)`), a mean over tokens and a head a classifier.

    Embeddings are normal with standard deviation 0.02, in `Model.init` and in the module itself;
    the layers are drawn as torch draws them.

    Args:
        num_embeddings: the number of tokens there are, special ones included.
        d_model: the size of a token's vector.
        nhead: the number of attention heads, a divisor of `d_model`.
        num_layers: the number of layers.
        max_length: the longest sequence, and so the number of positions with an embedding.
        dim_feedforward: the size of a layer's hidden layer; four times `d_model` if left out.
        dropout: the probability of dropout, of embeddings and inside the layers.
        activation: "relu", "gelu" or a function of a tensor.
        padding_idx: the token that fills up short sequences; None if there is none.
        device: where the parameters live.
        dtype: their dtype.

    Attributes:
        token: the embedding of tokens, an `nn.Embedding`.
        position: the embedding of positions, an `nn.Embedding`.
        layers: the layers, an `nn.ModuleList`.
        norm: the last layer norm.

    Raises:
        ValueError: a size is not positive, `nhead` does not divide `d_model`, `dropout` is not in
            [0, 1], or `padding_idx` is no token; or, when called, the sequence is too long.

    Example:
        >>> encoder = TokenEncoder(50, 16, 2, 1, max_length=8, padding_idx=0)
        >>> encoder(torch.tensor([[3, 14, 15, 9], [2, 6, 0, 0]])).shape
        torch.Size([2, 4, 16])

    References:
        Devlin, Chang, Lee, Toutanova (2019), "BERT: pre-training of deep bidirectional
        transformers for language understanding". Departures: no segment embeddings, and layers
        that normalize first, as in Xiong et al. (2020), "On layer normalization in the
        transformer architecture".
    """

    def __init__(
        self,
        num_embeddings: int,
        d_model: int,
        nhead: int,
        num_layers: int,
        *,
        max_length: int,
        dim_feedforward: int | None = None,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "gelu",
        padding_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        hidden = 4 * d_model if dim_feedforward is None else dim_feedforward
        for name, size in (
            ("num_embeddings", num_embeddings),
            ("d_model", d_model),
            ("nhead", nhead),
            ("num_layers", num_layers),
            ("max_length", max_length),
            ("dim_feedforward", hidden),
        ):
            if size < 1:
                raise ValueError(f"`{name}` must be positive, got {size}")
        if d_model % nhead:
            raise ValueError(f"`nhead` must divide `d_model`, {d_model}, got {nhead}")
        if not 0.0 <= dropout <= 1.0:
            raise ValueError(f"`dropout` must be in [0, 1], got {dropout}")
        if padding_idx is not None and not 0 <= padding_idx < num_embeddings:
            raise ValueError(f"`padding_idx` must be in [0, {num_embeddings}), got {padding_idx}")
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.padding_idx = padding_idx
        self.token = nn.Embedding(num_embeddings, d_model, **made)
        self.position = nn.Embedding(max_length, d_model, **made)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                d_model,
                nhead,
                hidden,
                dropout,
                activation,
                batch_first=True,
                norm_first=True,
                **made,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(d_model, **made)
        with torch.no_grad():
            for embedding in (self.token, self.position):
                embedding.weight.mul_(_EMBEDDING_STD)  # torch's draw has variance 1

    @property
    def initializers(self) -> dict[str, Initializer]:
        """What `Model.init` draws embeddings by."""
        law = initializers.normal(std=_EMBEDDING_STD)
        return {"token.weight": law, "position.weight": law}

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens, integers of shape (N, L), to vectors of shape (N, L, d_model)."""
        length, longest = tokens.shape[-1], self.position.num_embeddings
        if length > longest:
            raise ValueError(f"`tokens` must be at most {longest} long, got {length}")
        padding = None if self.padding_idx is None else tokens == self.padding_idx
        x = self.token(tokens) + self.position.weight[:length]
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padding)
        output: Tensor = self.norm(x)
        return output


_EMBEDDING_STD = 0.02
