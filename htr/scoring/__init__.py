"""How well readings agree with references. errors: of one line; count: all that is counted, of lists of lines, with
normalise, words, values, characters; interval, significance, trend: what the sums say, and how surely.
"""
