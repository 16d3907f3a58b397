"""Training: what a run is asked to do, its data, steps, optimiser, checkpoints and folder."""
