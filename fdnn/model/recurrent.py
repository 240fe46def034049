"""RNN, LSTM and GRU as loops over time in plain operations, and their cells.

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

__all__ = ["RecurrentCell", "RecurrentLoop", "rewrite"]


class RecurrentLoop(nn.Module):
    """What an `nn.RNN`, `nn.LSTM` or `nn.GRU` becomes: the same parameters, another forward."""

    mode: str
    num_layers: int
    hidden_size: int
    proj_size: int
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
        hidden_shape = (layers, batch, self.proj_size or self.hidden_size)
        cell_shape = (layers, batch, self.hidden_size)
        if hx is None:
            return steps.new_zeros(hidden_shape), steps.new_zeros(cell_shape)
        hidden, cell = hx if self.mode == "LSTM" else (hx, hx)
        if unbatched:
            hidden, cell = hidden.unsqueeze(1), cell.unsqueeze(1)
        _check_state(hidden, hidden_shape)
        _check_state(cell, cell_shape)
        return hidden, cell

    def _run(
        self, steps: Tensor, hidden: Tensor, cell: Tensor, suffix: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer in one direction: outputs (T, N, features), last hidden, last cell."""
        weight = getattr(self, f"weight_hh_{suffix}")
        bias = getattr(self, f"bias_hh_{suffix}", None)
        inputs = F.linear(
            steps, getattr(self, f"weight_ih_{suffix}"), getattr(self, f"bias_ih_{suffix}", None)
        )
        outputs = []
        for now in inputs.unbind(0):
            recurrent = F.linear(hidden, weight, bias)
            hidden, cell = _step(self.mode, now, recurrent, hidden, cell)
            if self.proj_size:
                hidden = F.linear(hidden, getattr(self, f"weight_hr_{suffix}"))
            outputs.append(hidden)
        return torch.stack(outputs), hidden, cell


class RecurrentCell(nn.Module):
    """What an `nn.RNNCell`, `nn.LSTMCell` or `nn.GRUCell` becomes."""

    mode: str
    hidden_size: int
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Run as the original: the next hidden state, or `(h, c)` of an LSTM cell."""
        shape = (*input.shape[:-1], self.hidden_size)
        if hx is None:
            hidden = cell = input.new_zeros(shape)
        else:
            hidden, cell = hx if self.mode == "LSTM" else (hx, hx)
        _check_state(hidden, shape)
        _check_state(cell, shape)
        now = F.linear(input, self.weight_ih, self.bias_ih)
        recurrent = F.linear(hidden, self.weight_hh, self.bias_hh)
        hidden, cell = _step(self.mode, now, recurrent, hidden, cell)
        return (hidden, cell) if self.mode == "LSTM" else hidden


def rewrite(module: nn.Module) -> None:
    """Turn every recurrent layer and cell of torch inside `module` into its plain form."""
    child: Any
    for child in module.modules():
        if type(child) in (nn.RNN, nn.LSTM, nn.GRU):
            del child.__dict__["_flat_weights"]
            child.__class__ = RecurrentLoop
        elif type(child) in (nn.RNNCell, nn.LSTMCell, nn.GRUCell):
            gated = {nn.LSTMCell: "LSTM", nn.GRUCell: "GRU"}
            child.mode = gated.get(type(child)) or f"RNN_{child.nonlinearity.upper()}"
            child.__class__ = RecurrentCell


def _check_state(state: Tensor, shape: tuple[int, ...]) -> None:
    if state.shape != shape:  # it would broadcast
        raise ValueError(f"`hx` must have shape {shape}, got {tuple(state.shape)}")


def _step(
    mode: str, now: Tensor, recurrent: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    """One moment: what the input and the last state say becomes the next state."""
    if mode == "LSTM":
        return _lstm_cell(now + recurrent, cell)
    if mode == "GRU":
        return _gru_cell(now, recurrent, hidden), cell
    total = now + recurrent
    return (torch.tanh(total) if mode == "RNN_TANH" else torch.relu(total)), cell


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
