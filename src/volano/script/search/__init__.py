"""The search for a plan that makes a script faster: explanation, candidates, race, guard."""
