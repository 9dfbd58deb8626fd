"""dtmd: dynamic training of machine-learned potentials on AIMD, served in LAMMPS."""
