"""What all tests share."""

import os

# Open MPI's component btl/ofi, which no test needs, sleeps for a second at each start.
os.environ.setdefault("OMPI_MCA_btl", "^ofi")
