"""PIM designs: how a GEMV becomes commands."""
