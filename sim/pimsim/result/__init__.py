"""What happened: tables, invariants, cycle stacks, save and load."""
