"""Model cards, operator and request traces."""
