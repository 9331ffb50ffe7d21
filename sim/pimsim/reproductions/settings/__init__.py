"""Values of ordinary keys that published simulators have and hardware would not."""
