"""From what a model puts out to symbols: greedy, or a beam search with a language model; align: where a text stands.

decoder.py is what a reader uses of them, signals.py says how sure a reading is.
"""
