"""What PyTorch says of its recurrent networks, in float64: the numbers in gru_torch.json.

    python experiments/gru_oracle.py > tests/reference/gru_torch.json

It needs torch, which nothing else in the tests does. tests/reference/cells.json has PyTorch's RNN
with tanh and its LSTM, for a loss that reads the last state alone; this adds both forms of the GRU
and the RNN with relu, and for all five a loss that reads every state, with the gradients by the
inputs and the adjoint of every leaf of every state. The parameters are of the same closed formula.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

INPUTS, HIDDEN, STEPS, SCALE = 3, 4, 7, 0.6
PHASES = {"weight_ih": 0.1, "weight_hh": 0.9, "bias_ih": 2.1, "bias_hh": 3.7}
DOC = (
    "float64 autograd of PyTorch. P(name)[i, j] = A sin(1 + 0.7 i + 1.3 j + 0.9 i j + phase(name)) "
    "(vectors: j = 0), x[t, j] = cos(0.5 t + j), h_0[j] = 0.3 sin(j + 1), c_0[j] = 0.2 cos(j), "
    "loss = sum over t = 1..T and j of w[t, j] h_t[j], w[t, j] = cos(0.7 t + j). Gate blocks in "
    "PyTorch's order: LSTM (i, f, g, o), GRU (r, z, n). h and c begin with h_0 and c_0, and so do "
    "their adjoints, dL/dh_t by retain_grad() on the outputs of the cell. `stacks`: modules of two "
    "layers, both ways, as PyTorch initializes them: state_dict, and the outputs from zero states."
)

torch.set_default_dtype(torch.float64)


def main() -> None:
    """Print the JSON."""
    modules = {
        "rnn_tanh": (torch.nn.RNNCell(INPUTS, HIDDEN), torch.nn.RNN(INPUTS, HIDDEN)),
        "rnn_relu": (
            torch.nn.RNNCell(INPUTS, HIDDEN, nonlinearity="relu"),
            torch.nn.RNN(INPUTS, HIDDEN, nonlinearity="relu"),
        ),
        "lstm": (torch.nn.LSTMCell(INPUTS, HIDDEN), torch.nn.LSTM(INPUTS, HIDDEN)),
        "gru": (torch.nn.GRUCell(INPUTS, HIDDEN), torch.nn.GRU(INPUTS, HIDDEN)),
    }
    cells: dict[str, Any] = {}
    for name, (cell, layer) in modules.items():
        weights = formulas(cell)
        cell.load_state_dict(weights)
        layer.load_state_dict({f"{key}_l0": value for key, value in weights.items()})
        cells[name] = measured(cell, dict(cell.named_parameters()))
        # The fused layer must agree with its cell, or "PyTorch" would be two things.
        gap = layer(inputs())[0] - states(cell, inputs(), zeros(name))[0][1:]
        assert gap.abs().max() < 1e-14, name

    leaves = {key: value.requires_grad_() for key, value in formulas(modules["gru"][0]).items()}
    # One bias alone: before the product, the two would only ever enter as their sum.
    del leaves["bias_hh"]
    cells["gru_reset_before"] = measured(lambda x, h: reset_before(leaves, x, h), leaves)

    meta = {"torch": torch.__version__, "I": INPUTS, "H": HIDDEN, "T": STEPS, "A": SCALE}
    document = {"doc": DOC, **meta, "phases": PHASES, "cells": cells, "stacks": stacks()}
    print(json.dumps(document, separators=(",", ":")))


def reset_before(p: dict[str, Tensor], x: Tensor, h: Tensor) -> Tensor:
    """A step as in Cho et al. (2014), section 2.3, equations 5 to 8, with biases."""
    W_r, W_z, W_n = p["weight_hh"].chunk(3)
    U_r, U_z, U_n = p["weight_ih"].chunk(3)
    b_r, b_z, b_n = p["bias_ih"].chunk(3)
    r = torch.sigmoid(U_r @ x + W_r @ h + b_r)
    z = torch.sigmoid(U_z @ x + W_z @ h + b_z)
    return z * h + (1 - z) * torch.tanh(U_n @ x + W_n @ (r * h) + b_n)


def formulas(cell: torch.nn.Module) -> dict[str, Tensor]:
    """The closed formula's value for every parameter of a cell."""
    return {name: formula(PHASES[name], p.shape) for name, p in cell.named_parameters()}


def formula(phase: float, shape: torch.Size) -> Tensor:
    """A sin(1 + 0.7 i + 1.3 j + 0.9 i j + phase)."""
    i = torch.arange(shape[0])[:, None]
    j = torch.arange(shape[1] if len(shape) == 2 else 1)[None, :]
    return (SCALE * torch.sin(1 + 0.7 * i + 1.3 * j + 0.9 * i * j + phase)).reshape(shape)


def inputs() -> Tensor:
    """x, (T, D)."""
    t, j = torch.arange(STEPS)[:, None], torch.arange(INPUTS)[None, :]
    return torch.cos(0.5 * t + j)


def starts() -> tuple[Tensor, Tensor]:
    """h_0 and c_0."""
    j = torch.arange(HIDDEN)
    return 0.3 * torch.sin(j + 1.0), 0.2 * torch.cos(j + 0.0)


def zeros(name: str) -> Any:
    """The state that a layer starts from."""
    h = torch.zeros(HIDDEN)
    return (h, h) if name == "lstm" else h


def states(
    step: Callable[..., Any], xs: Tensor, state: Any
) -> tuple[Tensor, Tensor | None, list[Any]]:
    """h (T+1, H), c where the cell has one, and the states whose gradients are kept."""
    history = [state]
    for x in xs:
        state = step(x, state)
        for leaf in state if isinstance(state, tuple) else (state,):
            if leaf.requires_grad:
                leaf.retain_grad()
        history.append(state)
    if isinstance(state, tuple):
        return torch.stack([h for h, _ in history]), torch.stack([c for _, c in history]), history
    return torch.stack(history), None, history


def measured(step: Callable[..., Any], parameters: dict[str, Tensor]) -> dict[str, Any]:
    """States, loss, and every gradient."""
    xs = inputs().requires_grad_()
    h_0, c_0 = (leaf.requires_grad_() for leaf in starts())
    paired = isinstance(step, torch.nn.LSTMCell)
    h, c, history = states(step, xs, (h_0, c_0) if paired else h_0)
    t, j = torch.arange(1, STEPS + 1)[:, None], torch.arange(HIDDEN)[None, :]
    loss = (torch.cos(0.7 * t + j) * h[1:]).sum()
    loss.backward()
    out = {"h": h, "loss": loss, "grad_x": xs.grad}
    if c is None:
        out["grad_h"] = torch.stack([state.grad for state in history])
    else:
        out |= {"c": c, "grad_h": torch.stack([state[0].grad for state in history])}
        # No output reads c_T but through h_T of the same step, which its adjoint leaves out.
        last = [torch.zeros(HIDDEN) if s[1].grad is None else s[1].grad for s in history]
        out["grad_c"] = torch.stack(last)
    out |= {f"grad_{name}": p.grad for name, p in parameters.items()}
    assert all(value.isfinite().all() for value in out.values())
    return {name: value.tolist() for name, value in out.items()}


def stacks() -> dict[str, Any]:
    """Real modules: two layers, both ways, PyTorch's own names and initial values."""
    kinds = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    out = {}
    for name, kind in kinds.items():
        torch.manual_seed(0)
        module = kind(2, 2, num_layers=2, bidirectional=True)
        weights = {key: value.tolist() for key, value in module.state_dict().items()}
        ys = module(inputs()[:, :2])[0]
        out[name] = {"state_dict": weights, "outputs": ys.tolist()}
    return out


if __name__ == "__main__":
    main()
