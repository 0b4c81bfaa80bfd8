"""The search for a plan: candidates, memory, the race, its time, the explanation."""
