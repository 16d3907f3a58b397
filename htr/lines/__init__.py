"""A line image: found in a field, cut along its baseline, normalised to what a model sees, augmented for training."""
