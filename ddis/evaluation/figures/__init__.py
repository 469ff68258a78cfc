"""Figures of a study, as matplotlib figures that belong to nobody: no pyplot, no global state.

Coefficient and solution are dimensionless, as the problems are. A field [i, j] is x = i / (S - 1), y = j / (S - 1): pictures
show its transpose with the origin at the lower left. A run keeps its colour in all figures (`style.run_colours`). Labels such as
`ddis-gn, 1 %` name a run and its percent of pairs (`style.run_label`).
"""
