"""How far a reading can be trusted: calibration of probabilities, risk control, promises, monitoring, covariate shift."""
