"""Many LAMMPS runs of one input from AIMD frames: chosen, launched, resumed and handed to the comparison."""
