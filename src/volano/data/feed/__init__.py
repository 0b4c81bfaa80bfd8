"""The feeds, which bring batches to the device: resident, or through a ring of workers."""
