"""Simulated and semi-real certificates: forms, handwriting, scanner effects. A deployed reader needs none of it."""
