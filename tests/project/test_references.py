"""Every value of tests/reference/references.json, by its id."""

import json
from collections import Counter
from pathlib import Path

import pytest
import reference_checks_dynamics as dynamics
import reference_checks_tasks as classic
import reference_checks_theory as theory

CASES = json.loads((Path(__file__).parents[1] / "reference" / "references.json").read_text())
CHECKS = dynamics.CHECKS | theory.CHECKS | classic.CHECKS
NOT_APPLYING = dynamics.NOT_HERE | theory.NOT_HERE | classic.NOT_HERE


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case["id"]) for case in CASES if case["id"] in CHECKS]
)
def test_reference(case):
    CHECKS[case["id"]](case)


def test_every_reference_is_checked_or_listed_with_its_reason():
    parts = (dynamics, theory, classic)
    lists = [group for part in parts for group in (part.CHECKS, part.NOT_HERE)]
    listed = Counter(name for group in lists for name in group)
    assert listed == {case["id"]: 1 for case in CASES}
    assert len(CASES) == len(listed)
    assert all(reason.strip() for reason in NOT_APPLYING.values())
