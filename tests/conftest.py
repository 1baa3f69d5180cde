"""What all tests share."""

import os
import signal

# Open MPI's component btl/ofi, which no test needs, sleeps for a second at each start.
os.environ.setdefault("OMPI_MCA_btl", "^ofi")

# A shell starts what it runs in the background with Ctrl-C ignored, and so would every child of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)
