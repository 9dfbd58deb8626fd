"""Observables: pure functions of a `Trajectory` that return numbers with their uncertainty."""
