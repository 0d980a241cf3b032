"""What a user of PyTorch would run instead of `trace`."""

from collections.abc import Callable

import torch

MODULES = {
    "elman": (torch.nn.RNNCell, torch.nn.RNN),
    "lstm": (torch.nn.LSTMCell, torch.nn.LSTM),
    "gru": (torch.nn.GRUCell, torch.nn.GRU),
}


def peers(
    name: str, length: int, batch: int, inputs: int, hidden: int, threads: int
) -> dict[str, Callable[[], object]]:
    """The ways to time, each a function without arguments."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    xs = torch.randn(length, batch, inputs)
    cell, module = MODULES[name]
    return {
        "loop": loop(cell(inputs, hidden), xs),
        "loop, frozen": loop(cell(inputs, hidden).requires_grad_(False), xs),
        "fused": fused(module(inputs, hidden), xs),
    }


def loop(cell: torch.nn.RNNCellBase, xs: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A Python loop with `retain_grad()` on every state; gives the norm of each step's h."""
    frozen = not cell.weight_hh.requires_grad
    pair = isinstance(cell, torch.nn.LSTMCell)

    def run() -> torch.Tensor:
        cell.zero_grad()
        # Where no weight requires a gradient, the start makes the states require one.
        start = torch.zeros(xs.shape[1], cell.hidden_size, requires_grad=frozen)
        state, states = (start, start) if pair else start, []
        for x in xs:
            state = cell(x, state)
            leaves = state if pair else (state,)
            for leaf in leaves:
                leaf.retain_grad()
            states.append(leaves)
        states[-1][0].sum().backward()
        # The loss does not read an LSTM's last c, so that one has no gradient.
        norms = [[h.grad.norm() for h in leaves if h.grad is not None] for leaves in states]
        return torch.stack([torch.stack(each).norm() for each in norms])

    return run


def fused(module: torch.nn.RNNBase, xs: torch.Tensor) -> Callable[[], None]:
    """The module of whole sequences, forward and backward; it measures nothing."""

    def run() -> None:
        module.zero_grad()
        outputs, _ = module(xs)
        outputs[-1].sum().backward()

    return run


def training(
    name: str, length: int, batch: int, hidden: int, updates: int, threads: int
) -> Callable[[], None]:
    """Updates of Adam on the adding problem, the last output read out linearly."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    module, readout = MODULES[name][1](2, hidden), torch.nn.Linear(hidden, 1)
    adam = torch.optim.Adam([*module.parameters(), *readout.parameters()], lr=1e-3)
    half = length // 2

    def run() -> None:
        for _ in range(updates):
            values, marks = torch.rand(length, batch), torch.zeros(length, batch)
            columns = torch.arange(batch)
            marks[torch.randint(half, (batch,)), columns] = 1
            marks[half + torch.randint(length - half, (batch,)), columns] = 1
            outputs, _ = module(torch.stack([values, marks], dim=-1))
            target = (values * marks).sum(0)
            loss = ((readout(outputs[-1])[:, 0] - target) ** 2).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()

    return run
