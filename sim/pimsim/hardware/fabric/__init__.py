"""Links between devices and collectives on them."""
