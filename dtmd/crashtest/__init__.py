"""Crash tests: molecular dynamics of several models from the same starts, with what becomes of the runs.

The protocol is that of the TEA Challenge 2023 (Poltavsky et al., Chem. Sci. 16, 3738, 2025): runs from several starts,
the same for every model, at several temperatures, judged by how many survive and by observables side by side.
"""
