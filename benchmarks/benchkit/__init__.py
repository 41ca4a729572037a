"""What the benchmarks share: the machine, processes that are measured, tables, vectors, stores."""

import os
import sys
from pathlib import Path

# Threads that spin while they wait make every figure worse on a shared machine; the command line
# sets the same. Before numpy, torch and faiss are imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Stores without crawl or model are made by the tests' helpers.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
