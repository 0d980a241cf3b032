"""What `gradlab.check` compares, as a frame."""

from typing import Any

import numpy as np
import pandas as pd

from gradlab.frames.schema import CHECK, coerce


def check_frame(report: Any) -> pd.DataFrame:
    """The comparisons of a report of `gradlab.check`, a row per quantity, step and sample.

    The columns are those of `CHECK`. A record that `gradlab.trace` does not know has a difference
    of NaN, and `agrees` is missing there.

    >>> import jax, gradlab as gl
    >>> def loss(w, xs):
    ...     return jax.lax.scan(lambda h, x: (w * h + x, None), 0.0, xs)[0]
    >>> rows = check_frame(gl.check(loss, loss)(0.5, np.ones(3)))
    >>> rows.groupby("quantity").size().to_dict(), bool(rows.agrees.all())
    ({'adjoint': 3, 'gradient': 1, 'state': 3, 'value': 1}, True)
    """
    parts = [_part(each, report.batched) for each in report.comparisons]
    whole = coerce(pd.concat(parts, ignore_index=True), CHECK, "a check")
    return whole if report.batched else whole.drop(columns="sample")


def _part(each: Any, batched: bool) -> pd.DataFrame:
    rows, samples = each.difference.shape
    order = np.argsort(each.steps)
    part = pd.DataFrame(
        {
            "quantity": each.quantity,
            "scan": each.recurrence,
            "partner": each.partner,
            "leaf": each.leaf,
            "step": pd.array(np.repeat(each.steps[order], samples), dtype="Int64"),
            **{
                name: getattr(each, name)[order].ravel()
                for name in ("log_plain", "log_fast", "difference", "allowed")
            },
        }
    )
    exists = part.difference.notna()
    part["agrees"] = (part.difference <= part.allowed).astype("boolean").where(exists, pd.NA)
    if not each.recurrence:
        part["step"] = pd.NA
    elif batched:
        part["sample"] = np.tile(np.arange(samples), rows)
    return part
