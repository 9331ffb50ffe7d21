"""The exporters that people use, on tiny random decoders: what the tests of ``import-onnx`` read."""
