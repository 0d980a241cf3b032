"""Two forms of one model, held against each other step by step."""

from gradlab.checking._check import Report as Report
from gradlab.checking._check import check as check
