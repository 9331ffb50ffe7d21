"""DRAM: standards as tables, address maps, the command scheduler."""
