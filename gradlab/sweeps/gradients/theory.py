"""What theory predicts for a run, and where it is known not to hold."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gradlab import meanfield, tasks
from gradlab.decay import increment_weights
from gradlab.grid import Run
from gradlab.sweeps.gradients.curves import critical_options
from gradlab.sweeps.options import options_of

# Std of a standard normal truncated to [-2, 2].
_CUT = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))

# σ_w/gain of a square W whose entries have variance σ_w²/n and are close to independent.
_SPREAD: dict[str, float] = {
    "normal": 1.0,
    "uniform": 1.0,
    "lecun": 1.0,
    "he": math.sqrt(2),
    "pytorch": 1 / math.sqrt(3),
    "haiku": _CUT,
    "orthogonal": 1.0,
}
# As well, of what its option `gates` says: G blocks share one kernel.
_SPREAD_BY_GATES: dict[str, tuple[int, Callable[[int], float]]] = {
    "glorot": (1, lambda gates: math.sqrt(2 / (1 + gates))),
    "stacked_orthogonal": (4, lambda gates: 1 / math.sqrt(gates)),
}
_OTHERWISE = {
    "chain": "its weights are not random",
    "identity": "its weights are not random",
    "rotations": "its weights are blocks of two units",
    "eigenvalue_ring": "its weights are blocks of two units",
    "spectral_radius": "its weights are rescaled by their own spectral radius",
    "echo_state": "its weights are sparse and rescaled by their own spectral radius",
    "heavy_tailed": "its weights have no variance",
}
# Initializers whose entries are Gaussian.
_GAUSSIAN = ("normal", "critical")
_GATED = ("gru", "gru_reset_before", "lstm", "minimal_rnn")


class Prediction(NamedTuple):
    """What theory says of a run.

    Attributes:
        theory: "mean field" or "disc law", or "does not hold: …" and "none: …" with the reason.
        rate: in nats per step, of a network of infinite width; NaN where there is no theory.
        bias: what the run's width and length add to it, in nats per step, where that is derived;
            NaN where it is not.
    """

    theory: str
    rate: float = math.nan
    bias: float = math.nan


def predict(run: Run) -> Prediction:
    """The rate that theory gives a run, or the reason why it gives none.

    elman follows mean field with tied weights and untied; gru, gru_reset_before, lstm and
    minimal_rnn with untied weights only. With tied weights the first three have the disc law at
    the zero state, where a run stays that has neither input nor biases.

    The input adds input_scale² to the variance of each preactivation: every feature of every
    source has variance 1, U draws the units independently, and theory takes no more of the input
    than its variance at one time, so that correlations in time (of text) do not matter. That
    |x_t|² scatters about `inputs` is in the bias.

    >>> from gradlab.grid import Plan
    >>> from gradlab.sweeps import parse
    >>> fixed = {"cell": "elman", "init": "normal", "gain": 2.0, "length": 99, "input_scale": 0.5,
    ...          "weights": "untied"}
    >>> (run,) = Plan(parse({"fixed": fixed}))
    >>> theory, rate, bias = predict(run)
    >>> theory, round(rate, 4), round(bias, 4)
    ('mean field', 0.1204, -0.0118)
    >>> predict(run._replace(weights="tied")).bias
    nan
    >>> predict(run._replace(cell="leaky")).theory
    'none: no theory of leaky'
    """
    if run.cell not in ("elman", *_GATED) or run.init is None or run.gain is None:
        return Prediction(f"none: no theory of {run.cell}")
    if run.init not in ("critical", *_SPREAD, *_SPREAD_BY_GATES, *_OTHERWISE):
        return Prediction(f"none: no theory of {run.init}")
    if run.input_scale and tasks.INPUTS.is_foreign(run.input):
        return Prediction(f"none: the variance of the input {run.input} is not known")
    if run.init in _OTHERWISE:
        return Prediction(f"none: {run.init}: {_OTHERWISE[run.init]}")
    spread = run.gain * _deviation(run)
    return _predict_elman(run, spread) if run.cell == "elman" else _predict_gated(run, spread)


def _deviation(run: Run) -> float:
    """σ_w at a gain of 1, where W_ij has variance σ_w²/n."""
    if run.init == "critical":  # as the sweep draws it, whatever the cell
        return _critical_gain(**critical_options(run))
    if run.init in _SPREAD_BY_GATES:
        default, spread = _SPREAD_BY_GATES[run.init]
        return spread(options_of(run, "init").get("gates", default))
    return _SPREAD[str(run.init)]


@functools.cache
def _critical_gain(activation: str, bias_std: float, input_variance: float) -> float:
    return meanfield.critical_gain(activation, bias_std=bias_std, input_variance=input_variance)


def _undriven(run: Run) -> bool:
    return not run.input_scale and not run.bias_scale


# A run starts at 0. Without input and biases it stays there, though a theory whose stable state
# is another one speaks of that.
_AT_ZERO = "does not hold: without input and biases the run stays at 0, which is not stable here"


def _predict_elman(run: Run, spread: float) -> Prediction:
    if run.activation == "relu" and _undriven(run):
        return Prediction("does not hold: without input and biases relu is off at every step")
    activation, bias_std = str(run.activation), run.bias_scale or 0.0
    field = _elman_field(activation, spread, bias_std, run.input_scale**2)
    if _undriven(run) and run.activation != "linear" and field.q > 0:
        return Prediction(_AT_ZERO)
    return Prediction("mean field", field.rate, _elman_bias(run, spread, field))


@functools.cache
def _elman_field(
    activation: str, spread: float, bias_std: float, input_variance: float
) -> meanfield.MeanField:
    return meanfield.elman(activation, spread, bias_std=bias_std, input_variance=input_variance)


def _elman_bias(run: Run, spread: float, field: meanfield.MeanField) -> float:
    """What width and length add to the rate; NaN where that is not derived.

    Where the network is linear (also at the state 0), an orthogonal W changes no direction's norm:
    nothing is added, with tied weights neither. Untied Gaussian weights, and relu with untied
    orthogonal ones, have `meanfield.untied_steps`. What is left has no derivation: W that are the
    same at all steps, where the rate is that of the very matrix, and the saturating activations
    under entries that are not Gaussian or an input whose |x_t|² has an unknown law.
    """
    activation, orthogonal = str(run.activation), run.init == "orthogonal"
    is_linear = activation == "linear" or (activation != "relu" and field.q == 0)
    if orthogonal and is_linear and math.isfinite(field.rate):
        return 0.0
    scale_free = is_linear or activation == "relu"
    derived = run.init in _GAUSSIAN or (orthogonal and scale_free)
    known_input = scale_free or run.input == "gaussian" or not run.input_scale
    if run.weights != "untied" or not (derived and known_input and math.isfinite(field.rate)):
        return math.nan
    lags, weights = increment_weights(run.length)
    if not len(weights):
        return math.nan
    steps = _untied_steps(
        activation,
        spread,
        run.length,
        run.hidden,
        run.bias_scale or 0.0,
        run.input_scale**2,
        run.input_scale**2 * math.sqrt(2 / run.inputs),
        orthogonal,
    )
    # By lag: the step from lag 0 to 1 is that of the last input.
    back = steps[:0:-1][lags.start : lags.stop - 1]
    return float(np.sum(weights * back)) - field.rate


@functools.lru_cache(256)
def _untied_steps(
    activation: str,
    spread: float,
    length: int,
    n: int,
    bias_std: float,
    input_variance: float,
    input_spread: float,
    orthogonal: bool,
) -> np.ndarray:
    return meanfield.untied_steps(
        activation,
        spread,
        length,
        n,
        bias_std=bias_std,
        input_variance=input_variance,
        input_spread=input_spread,
        orthogonal=orthogonal,
    )


def _predict_gated(run: Run, spread: float) -> Prediction:
    bias_std, drive = run.bias_scale or 0.0, run.input_scale**2
    if run.weights == "untied":
        rate, q = _gated_field(run.cell, spread, bias_std, drive, run.forget_bias)
        if _undriven(run) and q > 0:
            return Prediction(_AT_ZERO)
        return Prediction("mean field", rate)
    if run.cell == "minimal_rnn" or not _undriven(run):
        return Prediction("does not hold: tied gated cells do not follow the mean field")
    rate = _disc_rate(run.cell, spread, run.forget_bias)
    return Prediction("disc law", rate) if rate < 0 else Prediction(_AT_ZERO)


@functools.cache
def _gated_field(
    cell: str, spread: float, bias_std: float, input_variance: float, forget_bias: float | None
) -> tuple[float, float]:
    """The rate, and the variance q of the state."""
    if cell == "minimal_rnn":
        # Its features are tanh(U x + b'), embedded by a V of gain 1.
        features = meanfield.second_moment("tanh", input_variance + bias_std**2)
        field = meanfield.minimal_rnn(spread, feature_variance=features, bias_std=bias_std)
    elif cell == "lstm":
        field = meanfield.lstm(
            spread,
            forget_bias=forget_bias or 0.0,
            bias_std=bias_std,
            input_variance=input_variance,
        )
    else:
        theory = meanfield.gru if cell == "gru" else meanfield.gru_reset_before
        field = theory(spread, bias_std=bias_std, input_variance=input_variance)
    return field.rate, field.q


@functools.cache
def _disc_rate(cell: str, spread: float, forget_bias: float | None) -> float:
    biases = {} if forget_bias is None else {"forget_bias": forget_bias}
    return meanfield.disc(cell, spread, **biases).rate
