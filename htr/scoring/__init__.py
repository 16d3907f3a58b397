"""How well readings agree with references, and how far they can be trusted.

errors; interval, how far rates may be off; words, those never seen. calibration, from signals to probabilities; units,
of lines, words, fields, certificates; reliability, whether they hold; guarantee, a threshold that errs at most so much;
promise, both on disk; monitor, the same in production; drift, whether new lines are like the old ones.
"""
