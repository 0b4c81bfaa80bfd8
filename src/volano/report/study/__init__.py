"""The pages about a study: what was tried, what came of it, how packs ran."""
