"""`python -m published [FIGURE ...]`, with experiments/ on the path: measure into results/."""

import sys

from published import FIGURES
from published.table import RESULTS, load, run

run(load(FIGURES), RESULTS, sys.argv[1:])
