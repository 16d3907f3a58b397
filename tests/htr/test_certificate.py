"""Names: keys that are safe and never shared, splits that stay, log names that tell nothing."""

import itertools
import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from htr.certificate import SPLITS, clean_text, log_name, sample_key, split_of

SHARES = {"train": 0.8, "dev": 0.02, "val": 0.1, "calibration": 0.03, "test": 0.05}
PART = st.text(max_size=12) | st.text("_~.- /\\aZ9é5f", max_size=8)


def original(key: str) -> tuple[str, ...]:
    """The names that a key was made of: were two triples to share a key, this could not give both."""
    parts = key.rsplit("_", 2)
    return tuple(re.sub("(?:~..)+", lambda m: bytes.fromhex(m[0].replace("~", "")).decode(), part) for part in parts)


@given(PART, PART, PART)
def test_a_key_gives_back_its_names(certificate, field, line):
    assert original(sample_key(certificate, field, line)) == (certificate, field, line)


@given(st.tuples(PART, PART, PART), st.tuples(PART, PART, PART))
def test_different_names_have_different_keys(one, other):
    assert (sample_key(*one) == sample_key(*other)) == (one == other)


def test_all_short_names_have_different_keys():
    parts = ["".join(p) for n in range(3) for p in itertools.product("_~.5f", repeat=n)]
    keys = {sample_key(*names) for names in itertools.product(parts, repeat=3)}
    assert len(keys) == len(parts) ** 3


@given(PART, PART, PART)
def test_a_key_is_a_safe_file_name(certificate, field, line):
    assert re.fullmatch(r"[A-Za-z0-9_~-]+", sample_key(certificate, field, line))


def test_only_the_certificate_keeps_its_underscores():
    assert sample_key("sim_2020_17", "Ia", "0") == "sim_2020_17_Ia_0"
    assert sample_key("c", "I_a", "0_1") == "c_I~5fa_0~5f1"
    assert sample_key("peraire-B.12", "é", "0") == "peraire-B~2e12_~c3~a9_0"


def test_shares_are_met():
    counts = Counter(split_of(f"certificate {i}", SHARES, "1") for i in range(20_000))
    for split, share in SHARES.items():
        assert abs(counts[split] / 20_000 - share) < 0.01


def test_a_split_of_no_share_stays_empty():
    shares = {"train": 0.5, "dev": 0.0, "val": 0.5, "calibration": 0.0, "test": 0.0}
    assert {split_of(str(i), shares, "1") for i in range(2000)} == {"train", "val"}


def test_last_years_certificates_stay_where_they_are():
    """Written down: a change of the hash would move lines that readers were trained on into the test split."""
    found = [split_of(f"c{i}", dict.fromkeys(SPLITS, 0.2), "1") for i in range(8)]
    assert found == ["test", "val", "train", "train", "train", "test", "val", "calibration"]


def test_the_order_of_the_shares_does_not_matter():
    """A command line or a JSON file may give them in another one."""
    backwards = dict(reversed(SHARES.items()))
    assert all(split_of(str(i), SHARES, "1") == split_of(str(i), backwards, "1") for i in range(1000))


def test_another_salt_is_another_split():
    splits = {salt: [split_of(str(i), SHARES, salt) for i in range(1000)] for salt in "12"}
    assert splits["1"] != splits["2"]


@given(st.text("abcdefghij", min_size=4), st.text("abcdefghij", min_size=4))
def test_a_log_name_is_constant_and_does_not_tell_the_key(certificate, other):
    key = sample_key(certificate, "Ia", "0")
    name = log_name(key)
    assert name == log_name(key) and re.fullmatch("sample-[0-9a-f]{10}", name)
    assert certificate not in name.removeprefix("sample-") or re.fullmatch("[a-f]+", certificate)
    assert (name == log_name(sample_key(other, "Ia", "0"))) == (certificate == other)


def test_clean_text():
    assert clean_text("  de\u0301ce\u0300s\n\t du\u00a0 coeur ") == "décès du coeur"
    assert clean_text(None) == clean_text(" \n") == ""
