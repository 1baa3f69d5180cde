"""The CPU time of a part, with that of the programs that it has run."""

import subprocess
import sys

from taskfarm.worker.cpu_time import CpuMeter

BUSY = "import time\nwhile time.process_time() < 0.3: pass"


def test_programs_that_a_call_has_run_count() -> None:
    meter = CpuMeter()
    meter.start()
    subprocess.run([sys.executable, "-c", BUSY], check=True, timeout=240)
    cpu, _ = meter.stop(1.0)
    assert cpu >= 0.25
    meter.start()
    cpu, _ = meter.stop(1.0)
    assert cpu < 0.25
