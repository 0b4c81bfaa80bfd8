"""Scripts of other people: observed, raced and run from outside, as they are."""
