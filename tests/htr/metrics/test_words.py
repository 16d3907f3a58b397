"""Words that training never had."""

from htr.metrics.words import right_words, unicode_words, unseen, words_in


def test_words_not_known_are_counted_and_those_misread_among_them():
    known = words_in(["choc septique sur", "e\u0301tat"])
    assert known == {"choc", "septique", "sur", "état"}
    assert unseen("choc sur état", "rien", known) == (0, 0)
    assert unseen("choc anaphylactique sur piqûre", "choc anaphylactique sur piqure", known) == (2, 1)
    assert unseen("grippe", "", known) == (1, 1) and unseen("", "grippe", known) == (0, 0)
    # a word left out or put in moves the others, which are right all the same
    assert unseen("la grippe aviaire", "grippe aviaire", known) == (3, 1)
    assert unseen("la grippe aviaire", "la grippe très aviaire", known) == (3, 0)
    assert unseen("etat", "etat", known) == (1, 0) and unseen("De\u0301ce\u0300s", "Décès", known) == (1, 0)


def test_words_by_unicodes_rules():
    assert unicode_words("l'IRC, 3,5 kg. A.V.C. (12h30) c\u2019est 12/03 -") == [
        "l'IRC", "3,5", "kg", "A.V.C", "12h30", "c\u2019est", "12", "03"]  # fmt: skip
    assert unicode_words("cardio-respiratoire e\u0301tat a.3 3.a") == [
        "cardio", "respiratoire", "e\u0301tat", "a", "3", "3", "a"]  # fmt: skip
    assert unicode_words("") == unicode_words(" ,; ") == []


def test_words_that_are_right_are_those_of_an_alignment():
    assert right_words("choc septique sur IRC", "choc sceptique sur l' IRC") == [True, False, True, False, True]
    assert right_words("", "a b") == [False, False] and right_words("a", "") == []
