"""Many runs: which points, what is known already, and who simulates the rest."""
