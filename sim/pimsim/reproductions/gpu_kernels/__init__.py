"""How published simulators time a GPU's kernels; see ``pimsim.hardware.xpu.kernels``."""
