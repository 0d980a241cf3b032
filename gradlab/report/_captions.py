"""What each figure of a sweep shows, in words: a figure that one is mailed comes without its code.

The names are those that `gradlab.figures.draw` gives; they stand in the order of the report.
"""

from typing import NamedTuple


class Caption(NamedTuple):
    """The head of a figure, and what it shows in which unit."""

    title: str
    text: str


CAPTIONS = {
    "decay": Caption(
        "How gradients change with lag",
        "The gradient's norm ‖λₜ‖ relative to that at the last step, in decades (log₁₀), against "
        "the lag T − t in steps. A row of panels per initialization, a column per cell, a line "
        "per gain: the median over all seeds, the range of the seeds as a band. A line ends where "
        "the median is exactly zero or a seed is not finite, which a note says. Marks stand where "
        "a line's first seed stops being finite (×) or becomes exactly zero (▽). Dotted lines are "
        "float32's ε and 1/ε, beyond which one of the two gradients is lost beside the other, "
        "dashed ones its range. A panel without curves was not swept. Input: {subject}; the "
        "longest sequences.",
    ),
    "phase": Caption(
        "Where gradients vanish and explode",
        "The rate in nats per step, the slope of ln ‖λₜ‖ against lag, over gain (dimensionless) "
        "and cell: below zero gradients vanish, above it they explode. Median over all "
        "seeds, an exact zero counting as minus infinity; hatched where a seed has no rate. "
        "The solid line is where the measured rate crosses zero between neighbours, the dotted "
        "one where theory puts it. "
        "Input: {subject}; the longest sequences.",
    ),
    "length": Caption(
        "What reaches the first step",
        "The gradient's norm at the first step relative to that at the last, in decades (log₁₀), "
        "against sequence length T in steps. A row of panels per gain (of many the lowest, the "
        "one nearest 1 and the highest), a column per cell, a line per initialization: median and"
        " range over all seeds; no point where the median is exactly zero (▽) or a seed is not "
        "finite (×). The vertical axis is linear within ±1 decade and logarithmic beyond. "
        "Input: {subject}.",
    ),
    "theory": Caption(
        "Measured rates and theory",
        "Above, the rate in nats per step against gain (dimensionless), mean and standard "
        "deviation over seeds, with theory as a dotted line; hollow points have no theory. Below, "
        "measured minus theory in nats per step: the band is the effect of a finite width, where "
        "it is derived, and a bar is three standard errors over the seeds; a point whose bar does "
        "not reach the band's far edge, or 0 without a band, is ringed. Input: {subject}; the "
        "longest sequences.",
    ),
    "inputs": Caption(
        "Rates on {subject} and on gaussian input",
        "Above, the rate in nats per step on {subject} against that on gaussian input, run by run "
        "with the same seed, with the diagonal of equal rates. Below, their difference in nats "
        "per step against gain (dimensionless). Mean and standard deviation over seeds; a point "
        "of which a seed has no finite rate is not drawn, and counted.",
    ),
    "learning": Caption(
        "The loss while learning",
        "The loss on fresh sequences, in the task's unit, against training step in updates. A "
        "panel per sequence length, a line per cell and remedy: the median over seeds, the range "
        "of the seeds as a band; dotted, what remembering nothing gives. Marks stand where the "
        "first seed is solved (●) or stops being finite (×), where the line ends. Task: {subject}.",
    ),
    "success": Caption(
        "How many runs solve the task",
        "The share of trained runs that solve the task (dimensionless) against sequence length in "
        "steps, a line per cell and remedy. Task: {subject}.",
    ),
    "gradients": Caption(
        "Gradients while learning",
        "ln ‖λₜ‖ in nats, as colour, over training step (updates) and lag (steps), with the loss "
        "above it; a panel per cell and remedy, the first seed of each, the longest sequences. "
        "Exact zeros are black, norms that are not finite grey. Task: {subject}.",
    ),
    "records": Caption(
        "What training recorded",
        "What the axis record names, against training step in updates: a panel for each, a row of "
        "panels per network, a line per leaf or entry (of a complex number its modulus): median "
        "over all seeds, and their range where there are few lines. Dotted where something neither "
        "grows nor shrinks. What is infinite is counted. Task: {subject}.",
    ),
    "width": Caption(
        "Coordinates over width",
        "The size of a coordinate, ln of the root mean square in nats, against width: of the "
        "states, of how far they moved since before training, and of the adjoint at the first "
        "step. A row of panels per network, a colour for each number of updates: median and "
        "range over all seeds; an exact zero leaves a gap. Level lines say that networks of all "
        "widths learn alike. Task: {subject}.",
    ),
}
