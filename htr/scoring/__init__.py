"""How well readings agree with references, and how far they can be trusted.

errors: of one line; count: all that is counted, of lists of lines, with normalise, words, values, characters; interval,
significance, trend: what the sums say, and how surely. calibration: from signals to probabilities; units: of lines,
words, fields, certificates; reliability: whether they hold; guarantee: a threshold that errs at most so much; promise:
both on disk; monitor: the same in production; drift: whether new lines are like the old ones.
"""
