"""What reproduces the pages of the paper: table 1, its figures, and the report of a run.

Nothing outside of this package imports it, but for the commands that start it: `tfseg.experiments.table1`,
`tfseg.experiments.figure4`, `tfseg.figures` and `tfseg.report`.
"""
