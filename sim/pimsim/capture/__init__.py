"""Real decoders to operator traces (extra ``torch``): what a forward pass really does."""
