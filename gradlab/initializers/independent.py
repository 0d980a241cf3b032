"""Weights whose entries are independent."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab import meanfield
from gradlab.initializers.base import Initializer, floating, matrix, register, scalar, whole


@register
def normal(gain: ArrayLike = 1.0) -> Initializer:
    """Independent Gaussian weights, W_ij ~ N(0, gain²/n).

    Args:
        gain: σ_w, a scalar, possibly traced; n is the fan-in, `shape[-1]`.

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(out, in)`.

    For a square W the spectral radius tends to `gain` as n grows (circular law).

    >>> W = normal(gain=2.0)(jax.random.key(0), (100, 400))
    >>> round(float(W.std()), 1)
    0.1

    Source: Sompolinsky, Crisanti & Sommers, "Chaos in random neural networks" (1988); the
    fan-in scaling is that of LeCun et al., "Efficient BackProp" (1998), section 4.6.
    """

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        _, fan_in = matrix("normal", shape)
        return scalar(gain, dtype) * jax.random.normal(key, shape, dtype) / math.sqrt(fan_in)

    return init


@register
def uniform(gain: ArrayLike = 1.0) -> Initializer:
    """Independent uniform weights of variance gain²/n, W_ij ~ gain·U(-a, a) with a = sqrt(3/n).

    Args:
        gain: σ_w, a scalar, possibly traced; n is the fan-in, `shape[-1]`.

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(out, in)`.

    >>> W = uniform()(jax.random.key(0), (100, 300))
    >>> bool(jnp.abs(W).max() <= 0.1)
    True

    Source: LeCun et al., "Efficient BackProp" (1998), section 4.6, with a uniform law.
    """
    draw = jax.nn.initializers.lecun_uniform(in_axis=-1, out_axis=-2)

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        return scalar(gain, dtype) * draw(key, matrix("uniform", shape), dtype)

    return init


@register
def lecun(gain: ArrayLike = 1.0) -> Initializer:
    """LeCun's weights as JAX draws them: Gaussian, cut at two deviations, of variance gain²/n.

    Args:
        gain: σ_w, a scalar, possibly traced; n is the fan-in, `shape[-1]`.

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(out, in)`.

    The default of flax for input kernels and of haiku's `GRU` for all. The width of the
    Gaussian is enlarged so that the variance is gain²/n after the cut.

    >>> W = lecun()(jax.random.key(0), (100, 400))
    >>> round(float(W.std()), 2), bool(jnp.abs(W).max() <= 2 / 20 / 0.8796)
    (0.05, True)

    Source: LeCun et al., "Efficient BackProp" (1998), section 4.6; `jax.nn.initializers`.
    """
    draw = jax.nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        return scalar(gain, dtype) * draw(key, matrix("lecun", shape), dtype)

    return init


@register
def he(gain: ArrayLike = 1.0) -> Initializer:
    """He's weights as JAX draws them: Gaussian, cut at two deviations, of variance 2·gain²/n.

    Args:
        gain: multiplies every weight, a scalar, possibly traced; n is the fan-in, `shape[-1]`.

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(out, in)`.

    >>> W = he()(jax.random.key(0), (100, 200))
    >>> round(float(W.std()), 2)
    0.1

    Source: He et al., "Delving deep into rectifiers" (2015), equation 10;
    `jax.nn.initializers`.
    """
    draw = jax.nn.initializers.he_normal(in_axis=-1, out_axis=-2)

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        return scalar(gain, dtype) * draw(key, matrix("he", shape), dtype)

    return init


@register
def glorot(gain: ArrayLike = 1.0, gates: int = 1) -> Initializer:
    """Glorot's uniform weights, W_ij ~ gain·U(-a, a) with a = sqrt(6 / (fan_in + fan_out)).

    Args:
        gain: multiplies every weight, a scalar, possibly traced. For a square W of width n the
            standard deviation is gain/√n.
        gates: G, with fan_out = G·out: what keras gives a gate's input weight, which it draws as
            one kernel over all gates.

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(out, in)`.

    Raises:
        ValueError: for `gates` below 1.

    >>> W = glorot()(jax.random.key(0), (100, 50))
    >>> bool(jnp.abs(W).max() <= 0.2)
    True

    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural
    networks" (2010), equation 16.
    """
    gates = whole("glorot", "gates", gates)

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        fan_out, fan_in = matrix("glorot", shape)
        limit = math.sqrt(6 / (fan_in + gates * fan_out))
        return scalar(gain, dtype) * jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


@register
def pytorch(gain: ArrayLike = 1.0) -> Initializer:
    """PyTorch's default for every weight and bias of RNN, LSTM and GRU, and equinox's.

    With H the number of units, whatever the fan-in::

        W_ij ~ gain·U(-1/√H, 1/√H)

    Args:
        gain: multiplies every weight, a scalar, possibly traced. A square W has the standard
            deviation gain/√(3H), and a spectral radius near gain/√3.

    Returns:
        An initializer for a shape `(H, in)`, or `(H,)` for a bias (of which PyTorch has two per
        gate, equinox one). It raises `ValueError` for any other shape.

    >>> b = pytorch()(jax.random.key(0), (100,))
    >>> bool(jnp.abs(b).max() <= 0.1)
    True

    Source: `torch.nn.RNNBase.reset_parameters`; `equinox.nn.LSTMCell` and `GRUCell`.
    """

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        if len(shape) not in (1, 2) or min(shape) < 1:
            raise ValueError(f"pytorch needs a shape (out, in) or (out,), got {tuple(shape)}")
        limit = 1 / math.sqrt(shape[0])
        return scalar(gain, dtype) * jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


@register
def haiku(gain: ArrayLike = 1.0, inputs: int = 0) -> Initializer:
    """The default of haiku's VanillaRNN and LSTM: N(0, 1/n) cut at two deviations.

    ::

        W_ij = gain·z / sqrt(n + inputs),  z ~ N(0, 1) given |z| < 2

    Args:
        gain: multiplies every weight, a scalar, possibly traced; n is `shape[-1]`.
        inputs: what else the kernel reads: haiku's LSTM has one kernel for x and h, whose fan-in is
            the sum of both widths. 0 for the VanillaRNN.

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(out, in)`.

    Raises:
        ValueError: for a negative `inputs`.

    The width is not corrected for the cut: the standard deviation is 0.8796 times what the name
    says, which `lecun` corrects.

    >>> W = haiku()(jax.random.key(0), (100, 400))
    >>> round(float(W.std()), 3), bool(jnp.abs(W).max() <= 0.1)
    (0.044, True)

    Source: `haiku.Linear` and `haiku.initializers.TruncatedNormal`.
    """
    extra = 0 if inputs == 0 else whole("haiku", "inputs", inputs)

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        _, width = matrix("haiku", shape)
        z = jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)
        return scalar(gain, dtype) * z / math.sqrt(width + extra)

    return init


@register
def critical(
    gain: ArrayLike = 1.0,
    activation: str = "tanh",
    bias_std: float = 0.0,
    input_variance: float = 0.0,
) -> Initializer:
    """Gaussian weights at the critical gain of a simple recurrent network.

    With σ_c the gain at which mean-field theory has χ = 1, neither vanishing nor exploding::

        W_ij ~ N(0, (gain·σ_c)²/n)

    Args:
        gain: multiplies σ_c, a scalar, possibly traced: below 1 the network is ordered, above 1
            chaotic; n is the fan-in, `shape[-1]`.
        activation: φ, one of those of `gradlab.meanfield`.
        bias_std: σ_b, the standard deviation of the bias.
        input_variance: q_in, the variance that the input adds to each preactivation.

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(out, in)`.

    Raises:
        ValueError: for an unknown activation, or an argument that is negative or not finite.

    Without bias and input σ_c = 1/φ'(0) for tanh, erf and linear, and √2 for relu.

    >>> W = critical(activation="relu")(jax.random.key(0), (100, 200))
    >>> round(float(W.std()), 2)
    0.1

    Source: Schoenholz et al., "Deep information propagation" (2017), section 3; Chen, Pennington &
    Schoenholz (2018) for recurrent networks.
    """
    critical_gain = meanfield.critical_gain(
        activation, bias_std=bias_std, input_variance=input_variance
    )

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        _, fan_in = matrix("critical", shape)
        dtype = floating(dtype)
        deviation = critical_gain / math.sqrt(fan_in)
        return scalar(gain, dtype) * deviation * jax.random.normal(key, shape, dtype)

    return init


@register
def heavy_tailed(gain: ArrayLike = 1.0, alpha: float = 1.5) -> Initializer:
    """Independent symmetric stable weights, whose variance is infinite for alpha < 2.

    With c = gain / (2n)^(1/α) the scale of the stable law::

        E exp(i t W_ij) = exp(-|c t|^α),  P(|W_ij| > x) ~ (2/π) Γ(α) sin(πα/2) (c/x)^α

    Args:
        gain: a scalar, possibly traced; n is the fan-in, `shape[-1]`. At α = 2 the law is that of
            `normal(gain)`, N(0, gain²/n).
        alpha: α, the exponent of the tails, in (0, 2]; 1 is the Cauchy law.

    Returns:
        An initializer. It raises `ValueError` for a shape that is not `(out, in)`.

    Raises:
        ValueError: for an alpha outside (0, 2].

    The sum over n inputs of order 1 is of order `gain` for every n and α. Some authors leave out
    the 2 and take c = gain/n^(1/α): their gain is ours over 2^(1/α).

    >>> W = heavy_tailed(alpha=1.0)(jax.random.key(0), (100, 50))
    >>> round(float(jnp.median(jnp.abs(W))), 2)  # c is the quartile of a Cauchy law
    0.01

    Source: Wardak & Gong, "Extended Anderson criticality in heavy-tailed neural networks" (2022);
    the method of drawing is that of Chambers, Mallows & Stuck (1976).
    """
    if not 0 < alpha <= 2:
        raise ValueError(f"heavy_tailed needs an alpha in (0, 2], got {alpha}")

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> Array:
        dtype = floating(dtype)
        _, fan_in = matrix("heavy_tailed", shape)
        angle_key, height_key = jax.random.split(key)
        # Half a step off the grid of the generator: no angle is ±π/2, no height is 0.
        half_step = 2.0 ** -(jnp.finfo(dtype).nmant + 1)
        u = jax.random.uniform(angle_key, shape, dtype) + half_step
        angle, cosine = math.pi * (u - 0.5), jnp.sin(math.pi * u)
        height = -jnp.log(jax.random.uniform(height_key, shape, dtype) + half_step)
        # At α = 1 the power is 0 and this is tan(angle), the Cauchy law.
        z = (
            jnp.sin(alpha * angle)
            / cosine ** (1 / alpha)
            * (jnp.cos((1 - alpha) * angle) / height) ** ((1 - alpha) / alpha)
        )
        return scalar(gain, dtype) * z / (2 * fan_in) ** (1 / alpha)

    return init
