"""How each reference of the group "task" is checked: `CHECKS` and `NOT_HERE`, by id."""

import jax
import numpy as np
import pytest

from gradlab import tasks


def _adding(case):
    assert tasks.make("adding").baselines["predict 1"] == pytest.approx(
        case["value"], abs=case["tol"]
    )


def _copying(case):
    delay = int(case["id"].rpartition("T")[2])
    assert tasks.make("copying", delay=delay).baselines["memoryless"] == pytest.approx(
        case["value"], abs=case["tol"]
    )


def _temporal_order(case):
    """Chance as it is published; the success rates are those of whole training runs."""
    assert "ln4=1.386294, error 75%" in case["desc"]
    task = tasks.make("temporal_order")
    _, targets = jax.vmap(task.sample)(jax.random.split(jax.random.key(0), 10_000))
    guess = np.zeros((10_000, task.outputs))
    assert np.mean(jax.vmap(task.loss)(guess, targets)) == pytest.approx(1.386294, abs=1e-6)
    error = np.mean(jax.vmap(task.error)(guess, targets))
    assert error == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / 10_000))


CHECKS = {
    "adding_baseline": _adding,
    **{f"copy_baseline_T{delay}": _copying for delay in (100, 200, 300, 500)},
    "temporal_order": _temporal_order,
}
NOT_HERE = {
    "adding_arjovsky": "which networks beat the baseline is known after minutes of training, not "
    "in a test: it is an experiment"
}
