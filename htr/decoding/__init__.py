"""Decoding: greedy, CTC beam search with a language model, rescoring; forced alignment; confidence signals.

decoder.py is what a reader uses of them.
"""
