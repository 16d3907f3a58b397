"""How well readings agree with references: counts, error rates, values, intervals, significance, trends."""
