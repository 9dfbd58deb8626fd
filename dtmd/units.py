"""Every physical constant and unit conversion of the project, once.

Internal units: energy eV, length Å, time fs, mass u, temperature K (CODATA 2018).
"""

ELEMENTARY_CHARGE = 1.602176634e-19  # C, so eV in J
ATOMIC_MASS = 1.66053906660e-27  # kg

ACCELERATION = ELEMENTARY_CHARGE / ATOMIC_MASS * 1e-10
"""1 eV/(Å·u) in Å/fs²."""

KINETIC = 1.0 / ACCELERATION
"""1 u·Å²/fs² in eV."""

BOLTZMANN = 8.617333262e-5
"""eV/K."""

FS_PER_PS = 1000.0

WAVENUMBER = 1e15 / 2.99792458e10
"""1/fs in 1/cm: 10¹⁵ over the speed of light in cm/s."""

ASE_TIME = KINETIC**0.5
"""ASE's unit of time, Å·√(u/eV), in fs."""

HARTREE = 27.211386245988  # eV

RYDBERG = 0.5 * HARTREE  # eV

BOHR = 0.529177210903  # Å

ATOMIC_TIME = 2.4188843265857e-2  # ħ/E_h in fs

ELECTRON_MASS = 5.48579909065e-4  # u
