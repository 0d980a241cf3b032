"""The command line in this process: of a new one imports take seconds."""

import contextlib
import io
import sys
from typing import NamedTuple

import pytest

from gradlab import cli


class Done(NamedTuple):
    returncode: object
    stdout: str
    stderr: str


def gradlab(*arguments):
    """What `gradlab ARGUMENTS` says, and its status."""
    out, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gradlab", *map(str, arguments)])
        patch.setenv("COLUMNS", "160")
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
            pytest.raises(SystemExit) as end,
        ):
            cli.main()
    return Done(end.value.code or 0, out.getvalue(), errors.getvalue())
