"""What PIM and NPU compute, number by number, against float64 and PyTorch (extra ``torch``)."""
