"""Reliability of readings: calibration, risk control, promises, monitoring, covariate shift."""
