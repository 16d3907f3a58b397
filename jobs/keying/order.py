"""The order of rows: by certificate, least sure first, or most useful for training first (active learning).

`useful` is the greedy maximum of a feature-based submodular function (Wei, Iyer & Bilmes 2014, Submodularity in data
subset selection and active learning; for speech Wei et al. 2014): over the character trigrams of the readings,

    f(S) = sum over trigrams g of  frequency(g) * sqrt(uncertainty-weighted count of g in S)

A row is worth most that is unsure (1 - probability, times its length: the errors expected in it) and whose trigrams
many unread rows have; once a row like it has been chosen the root has flattened, so near-twins come late. Rows whose
reading is empty have no trigrams and come after the others.
"""

import heapq

import numpy as np

from jobs.keying.tables import KeyTable

ORDERS = ("certificate", "unsure", "useful")
CANDIDATES = 20_000  # the most unsure rows, among which `useful` chooses; the others follow by how unsure they are
BUCKETS = 1 << 16  # of hashed trigrams


def ordered(table: KeyTable, order: str) -> np.ndarray:
    """(len(todo),) places in `todo`, in the order in which rows are to be keyed. The sample of accepted rows comes
    first, since only a complete sample says anything. Raises ValueError for an unknown order, or one for which the
    table has no numbers."""
    if order not in ORDERS:
        raise ValueError(f"no such order: {order!r}; one of {', '.join(ORDERS)}")
    places = np.arange(len(table.todo))
    sample = table.blind_sample
    rest = places[~sample]
    if order != "certificate" and len(rest):
        probability = table.numbers("probability")
        confidence = table.numbers("audit_probability" if table.kind == "audit" else "confidence")
        probability = np.where(np.isnan(probability), confidence, probability)
        if np.isnan(probability[rest]).all():
            raise ValueError(f"{table.path}: no column probability or confidence: it can't be put in the order {order}")
        unsure = 1 - np.nan_to_num(probability[rest], nan=0.0)  # what could not be read is what is least sure
        if order == "unsure":
            rest = rest[np.argsort(-unsure, kind="stable")]
        else:
            rest = rest[useful([table.reading(int(row)) for row in table.todo[rest]], unsure)]
    return np.concatenate([places[sample], rest])


def useful(readings: list[str], unsure: np.ndarray) -> np.ndarray:
    """N readings, and (N,) 1 - the probability of each -> (N,) their numbers, the most useful for training first."""
    expected = unsure * np.array([max(len(text), 1) for text in readings])
    by_doubt = np.argsort(-expected, kind="stable")
    grams = dict.fromkeys(by_doubt[:CANDIDATES].tolist())
    frequency, covered, chosen = np.zeros(BUCKETS), np.zeros(BUCKETS), []
    for i, text in enumerate(readings):
        own = trigrams(text)
        frequency[own] += 1 / len(readings)
        if i in grams:
            grams[i] = own

    def gain(i: int) -> float:
        own = grams[i]
        before = covered[own]
        return float(frequency[own] @ (np.sqrt(before + unsure[i]) - np.sqrt(before)))

    # gains only shrink (submodularity): one that stays on top after it was looked at again is the largest (Minoux 1978)
    heap = [(-gain(i), i) for i in grams]
    heapq.heapify(heap)
    while heap:
        _, i = heapq.heappop(heap)
        now = -gain(i)
        if heap and now > heap[0][0]:
            heapq.heappush(heap, (now, i))
            continue
        chosen.append(i)
        covered[grams[i]] += unsure[i]
    return np.concatenate([np.array(chosen, np.int64), by_doubt[CANDIDATES:]])


def trigrams(text: str) -> np.ndarray:
    """(M,) the hash buckets of the text's different trigrams, in lower case, with its ends."""
    padded = np.frombuffer(f"  {text.lower()} ".encode("utf-32-le"), np.uint32).astype(np.uint64)
    if not text.strip():
        return np.empty(0, np.int64)
    mixed = (
        padded[:-2] * np.uint64(0x9E3779B1) ^ padded[1:-1] * np.uint64(0x85EBCA77) ^ padded[2:] * np.uint64(0xC2B2AE3D)
    )
    return np.unique((mixed >> np.uint64(7)) % BUCKETS).astype(np.int64)
