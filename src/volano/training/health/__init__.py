"""What a run watches: losses that are not finite, spikes of the loss, data that comes late."""
