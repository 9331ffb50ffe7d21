"""Controller with one read and one write queue a channel (Ramulator 2.1's HBM controllers)."""
