"""The NPU: systolic arrays, vector units, scratchpad."""
