"""The mmindex command line: parse, call, print."""
