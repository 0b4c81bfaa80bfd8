"""How batches reach the device: resident, or through a ring of workers."""
