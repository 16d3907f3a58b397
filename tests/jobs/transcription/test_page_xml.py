"""PAGE XML of a transcription: what stands in a table's cells never ends it."""

import pytest

from jobs.transcription.page_xml import lines_of

ROW = {"field": "", "turn": "", "reason": "", "alternatives": "[]", "baseline": "", "polygon": "", "box": "2 3 40 20"}
ROW |= {"text": "grippe", "confidence": 0.5, "probability": None}


@pytest.mark.parametrize(
    "cell", ["grippe", "1,2", "1,2 x,3", "1,2,3 4,5,6", "nan,1 2,3", "1e999,1 2,3", "1 2 3", "1,,2 3,4", "  "]
)
def test_a_baseline_that_makes_no_sense_is_left_out_as_it_was_in_reading(cell):
    [region] = lines_of([ROW | {"baseline": cell}, ROW | {"baseline": "2,20 41,20.5"}], (100, 50))
    assert [list(line.baseline) for line in region.lines] == [[], [(2.0, 20.0), (41.0, 20.5)]]
    assert region.lines[0].outline == region.lines[1].outline == [(2, 3), (41, 3), (41, 22), (2, 22)]
