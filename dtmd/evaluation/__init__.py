"""Models side by side along rollouts from the same AIMD frames, with intervals, figure and tables."""
