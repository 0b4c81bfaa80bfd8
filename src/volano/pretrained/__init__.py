"""Networks that were trained elsewhere: named by a reference, loaded from what lies on this
machine, given another head, and trained with it. Applications decide which and how long."""
