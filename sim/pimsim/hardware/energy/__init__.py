"""Energy of commands, multiplications and bytes."""
