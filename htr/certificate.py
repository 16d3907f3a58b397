"""Names: of a sample (its key), of the split that it belongs to, and the name it has in a log."""

import hashlib
import re
import unicodedata

SPLITS = ("train", "dev", "val", "calibration", "test")
LONGEST_KEY = 200  # characters; a file name with its ending must fit into 255 bytes


def sample_key(certificate: str, field: str, line: str) -> str:
    """CERTIFICATE_FIELD_LINE, safe as a file name and as a webdataset key, different for different inputs.

    webdataset cuts a name at its first dot, so dots (and whatever else is not a letter, digit or dash of ASCII) become
    ~ and two hexadecimal digits a byte. Only the certificate may keep its underscores: the last two part the key.
    """
    return f"{escape(certificate, '_')}_{escape(field)}_{escape(line)}"


def escape(part: str, also: str = "") -> str:
    return re.sub(rf"[^A-Za-z0-9{also}-]", lambda m: "".join(f"~{byte:02x}" for byte in m[0].encode()), part)


def log_name(key: str) -> str:
    """What a log may say of a sample: a hash, since a key holds the certificate's id."""
    return "sample-" + hashlib.sha256(key.encode()).hexdigest()[:10]


def split_of(group: str, shares: dict[str, float], salt: str) -> str:
    """The split of a writer or a certificate, by a hash of its name: the same however much the data grow, and in
    whatever order the shares are given."""
    point = int.from_bytes(hashlib.sha256(f"{salt}/{group}".encode()).digest()[:8], "big") / 2**64
    total = 0.0
    used = [split for split in SPLITS if shares.get(split)]
    for split in used:
        total += shares[split]
        if point < total:
            return split
    return used[-1]


def clean_text(text: str | None) -> str:
    """NFC, with every run of white space one space and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text or "").split())
