"""Static properties of models side by side: harmonic frequencies, and energies along a path."""
