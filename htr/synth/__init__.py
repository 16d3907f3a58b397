"""Simulated and semi-real certificates: forms, handwriting, texts and scanner effects. A deployed reader needs none of it."""
