"""Shared code of the benchmarks: the machine, measured processes, tables, vectors, stores."""

import os
import sys
from pathlib import Path

# Threads that spin while they wait make all results worse on a shared machine; the command line has
# the same setting. It must be set before numpy, torch and faiss are imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The helpers of the tests make stores without a crawl or a model.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
