"""Reference energies of the elements, and what they leave of the runs' energies."""

from __future__ import annotations

from collections.abc import Sequence

from ase.data import atomic_numbers

from dtmd.training_data import ReferenceEnergies, fit_reference_energies, mixed_text
from dtmd.trajectory import Trajectory


def energies_view(trajectories: Sequence[Trajectory]) -> ReferenceEnergies:
    """Reference energies of all elements in the data; raises as `fit_reference_energies`."""
    elements = {element for t in trajectories for element in t.elements}
    return fit_reference_energies(list(trajectories), sorted(elements, key=atomic_numbers.__getitem__))


def energies_text(fit: ReferenceEnergies) -> str:
    """The table of reference energies and what is left of each run's mean energy."""
    lines = ["element     E0, eV/atom"]
    for element, value in zip(fit.elements, fit.values, strict=True):
        lines.append(f"{element:<7}{value:16.6f}" + ("  not determined" if element in fit.ambiguous else ""))
    if fit.ambiguous:
        lines.append(f"The compositions do not determine {', '.join(fit.ambiguous)}: values of smallest norm, good "
                     "for these compositions only")
    lines += ["", "mean energy less ΣE0, meV/atom   run"]
    lines += [f"{1000 * value:30.3f}   {run}" for run, value in fit.residuals.items()]
    if fit.seems_mixed:
        lines.append(mixed_text(fit))
    return "\n".join(lines)
