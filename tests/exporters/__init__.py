"""The exporters that people use, on tiny random decoders: what ``import-onnx`` is tested on."""
