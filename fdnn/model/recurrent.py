"""RNN, LSTM and GRU as loops over time in plain operations.

torch's fused kernels have no batching rule, `torch.compile` refuses them, and their dropout draws
from the global generator. A functional model therefore runs these loops, which give the fused
kernels' values under every transform. They are as long as the sequence: a compiled graph
unrolls them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

__all__ = ["RecurrentLoop", "rewrite"]


class RecurrentLoop(nn.Module):
    """What an `nn.RNN`, `nn.LSTM` or `nn.GRU` becomes: the same parameters, another forward."""

    mode: str
    num_layers: int
    hidden_size: int
    proj_size: int
    bias: bool
    batch_first: bool
    bidirectional: bool
    dropout: float

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """Run as the original: `(output, h_n)`, or `(output, (h_n, c_n))` of an LSTM."""
        if isinstance(input, PackedSequence):
            raise TypeError(
                "`input` must be a tensor, got a PackedSequence, whose batches change size over "
                "time; pad the sequences and mask the outputs instead"
            )
        unbatched = input.ndim == 2
        batch_dim = 0 if self.batch_first else 1
        sequence = input.unsqueeze(batch_dim) if unbatched else input
        steps = sequence.transpose(0, 1) if self.batch_first else sequence  # (T, N, features)
        hidden, cell = self._first_state(steps, hx, unbatched)
        directions = 2 if self.bidirectional else 1
        last_hidden, last_cell = [], []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                index = layer * directions + direction
                suffix = f"l{layer}" + ("_reverse" if direction else "")
                forward = steps.flip(0) if direction else steps
                output, h, c = self._run(forward, hidden[index], cell[index], suffix)
                outputs.append(output.flip(0) if direction else output)
                last_hidden.append(h)
                last_cell.append(c)
            steps = torch.cat(outputs, dim=-1)
            if self.dropout and layer < self.num_layers - 1:
                steps = F.dropout(steps, self.dropout, self.training)
        output = steps.transpose(0, 1) if self.batch_first else steps
        if unbatched:
            output = output.squeeze(batch_dim)
        final = [torch.stack(last_hidden), torch.stack(last_cell)]
        h_n, c_n = (state.squeeze(1) if unbatched else state for state in final)
        return output, (h_n, c_n) if self.mode == "LSTM" else h_n

    def flatten_parameters(self) -> None:
        """Do nothing: there is no fused kernel to lay weights out for."""

    def _first_state(self, steps: Tensor, hx: Any, unbatched: bool) -> tuple[Tensor, Tensor]:
        layers = self.num_layers * (2 if self.bidirectional else 1)
        batch = steps.shape[1]
        if hx is None:
            hidden = steps.new_zeros(layers, batch, self.proj_size or self.hidden_size)
            return hidden, steps.new_zeros(layers, batch, self.hidden_size)
        hidden, cell = hx if self.mode == "LSTM" else (hx, hx)
        return (hidden.unsqueeze(1), cell.unsqueeze(1)) if unbatched else (hidden, cell)

    def _run(
        self, steps: Tensor, hidden: Tensor, cell: Tensor, suffix: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer in one direction: outputs (T, N, features), last hidden, last cell."""
        weight = getattr(self, f"weight_hh_{suffix}")
        bias = getattr(self, f"bias_hh_{suffix}") if self.bias else None
        inputs = F.linear(
            steps,
            getattr(self, f"weight_ih_{suffix}"),
            getattr(self, f"bias_ih_{suffix}") if self.bias else None,
        )
        outputs = []
        for now in inputs.unbind(0):
            recurrent = F.linear(hidden, weight, bias)
            if self.mode == "LSTM":
                hidden, cell = _lstm_cell(now + recurrent, cell)
                if self.proj_size:
                    hidden = F.linear(hidden, getattr(self, f"weight_hr_{suffix}"))
            elif self.mode == "GRU":
                hidden = _gru_cell(now, recurrent, hidden)
            elif self.mode == "RNN_TANH":
                hidden = torch.tanh(now + recurrent)
            else:
                hidden = torch.relu(now + recurrent)
            outputs.append(hidden)
        return torch.stack(outputs), hidden, cell


def rewrite(module: nn.Module) -> None:
    """Turn every `nn.RNN`, `nn.LSTM` and `nn.GRU` inside `module` into its loop, in place."""
    for child in module.modules():
        if type(child) in (nn.RNN, nn.LSTM, nn.GRU):
            del child.__dict__["_flat_weights"]
            child.__class__ = RecurrentLoop


def _lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def _gru_cell(now: Tensor, recurrent: Tensor, hidden: Tensor) -> Tensor:
    now_r, now_z, now_n = now.chunk(3, dim=-1)
    past_r, past_z, past_n = recurrent.chunk(3, dim=-1)
    z = torch.sigmoid(now_z + past_z)
    n = torch.tanh(now_n + torch.sigmoid(now_r + past_r) * past_n)
    return (1 - z) * n + z * hidden
