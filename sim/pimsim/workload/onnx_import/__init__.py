"""A decoder's ONNX graph to an operator trace (core dependency onnx; no PyTorch)."""
