"""Sample keys, splits by hash, text normalisation, and the hashed names that logs may use."""

import hashlib
import re
import unicodedata

SPLITS = ("train", "dev", "val", "calibration", "test")
# what has no shape and turns no text: soft hyphens, zero-width marks, variation selectors, tags, byte order marks
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u2065\u206a-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
MAX_KEY_LENGTH = 200  # characters; a file name with its ending must fit into 255 bytes


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
    """NFC, without what nobody sees, every run of white space one space and none at the ends."""
    text = text or ""
    if not text.isascii():
        text = unicodedata.normalize("NFC", INVISIBLE.sub("", text))
    return " ".join(text.split())


def invisible(text: str | None) -> list[str]:
    """The characters that clean_text drops, in their order."""
    return INVISIBLE.findall(text) if text and not text.isascii() else []


def not_text(text: str) -> str:
    """The first character that no reader could learn to write, or "": a control or a lone format character, half of a
    pair, one that Unicode has not assigned. Private use is text: editions of old hands need it."""
    if text.isprintable():
        return ""
    strange = (c for c in text if not c.isprintable() and unicodedata.category(c) not in ("Co", "Zs"))
    return next(strange, "")


def code_point(character: str) -> str:
    return f"U+{ord(character):04X}"


def single_spaced(text: str) -> str:
    """NFC, every run of white space one space and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def person_key(name: str | None) -> str:
    """The same for all ways in which one person's name is typed: capitals, spaces, Unicode's forms. "": not known."""
    return single_spaced(name or "").casefold()
