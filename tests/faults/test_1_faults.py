"""A fault in the middle of a run: the operator is told the truth, nothing is lost, and the next run completes."""

import re
import time

import pytest

from tests.faults import results
from tests.faults.bed import Bed
from tests.faults.faults import FAULTS, Fault
from tests.faults.promises import assert_next_run_completes, assert_nothing_lost, assert_told


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_costs_a_run_at_most(bed: Bed, fault: Fault) -> None:
    bed.recovered()
    with fault.around(bed):
        before = bed.kept()
        run = bed.run(*(word for setting in fault.config for word in ("-c", setting)))
        run.until(fault.at)
        fault.strike(bed)
        time.sleep(fault.lasts)
        told = bed.told() if fault.meanwhile else ""
        ended_at = time.monotonic()
        fault.mend(bed)
        assert re.search(fault.meanwhile, told, re.DOTALL), told
        bed.recovered()
        recovery = time.monotonic() - ended_at
        ended = bed.end(run)
        assert_told(ended, fault.verdicts, fault.reason)
        assert_nothing_lost(before, bed.kept(), new_keys=fault.makes_keys)
    bed.recovered()
    assert_next_run_completes(bed, ended)
    results.note(fault.name, bed, ended, recovery)
