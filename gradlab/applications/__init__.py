"""What a recurrent network is for: folders of one shape.

Each folder has the same files: `data` (from a file to arrays), `models` (bundles of pure functions
with a cell of `gradlab.cells`), `recipes` (every choice of a training), `learn` (training by
`gradlab.training`, and what a trained model answers), `store` (a model as one file) and `command`
(the command line). What they share is written once, in the modules with an underscore.
"""
