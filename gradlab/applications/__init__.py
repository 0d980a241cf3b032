"""Three things that a recurrent network is for, each of one shape.

| module | what it does |
| --- | --- |
| `sentiment` | says whether a film review is positive or negative |
| `translation` | writes a sentence, or a number in words, in another language |
| `weather` | forecasts the next hours of a series such as the temperature |

Each folder has the same files: `data` (from a file to arrays), `models` (bundles of pure functions
with a cell of `gradlab.cells`), `recipes` (every choice of a training), `learn` (training by
`gradlab.training`, and what a trained model answers), `store` (a model as one file) and `command`
(the command line). What they share is written once, in the modules with an underscore.
"""
