"""The equations of the cells that come from dynamical systems, in plain NumPy.

equations_gated.py says at its end what each of these tables holds.
"""

CASES = {}
EQUATIONS = {}
READS = {}
SHAPES = {}
MATRICES = {}
IDLE = {}
