"""How far a reading can be trusted: calibration, risk control, promises, monitoring, covariate shift."""
