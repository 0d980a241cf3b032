"""A module per published figure, and the table that they fill; see `published.table`."""

FIGURES = (
    "rate_against_gain",
    "minimal_rnn",
    "tied_untied_driven",
    "tied_untied_zero",
    "largest_exponent",
    "full_spectrum",
    "temporal_order",
    "adding",
    "copying",
    "flossing",
    "flossed_order",
)
