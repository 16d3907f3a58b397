"""How well readings agree with references: errors; interval, how far the rates may be off; words, those never seen."""
