"""Keying (`review`): tables to key, the journal of answers, the queue of rows, the server.

tables      rows that are to be keyed, of a table that transcribe or audit wrote, and the table that comes out
journal     the answers, append-only, on disk before they are acknowledged
answers     what the journal's records say together: which answers stand, what a row still needs, its final text
order       which row comes first: by certificate, the least sure, the most useful for training
work_queue  which operator gets which row, and for how long
session     operators, answers and undo over all tables: everything but HTTP
pictures    the crop of a row, what surrounds it, the whole scan
agreement   how far two keyers agree; progress: what was done and what it brought
lexicon     words that begin alike; guard: who may ask at all; server: the routes; static/: the page
"""
