"""The order of a search: candidates, memory, the race, its time, the explanation."""
