"""The faults of mutants.toml are those of today's code: each stands where it says, and its tests are there."""

import mutants


def test_every_fault_fits():
    assert [why for fault in mutants.read_faults() if (why := fault.misfit())] == []
