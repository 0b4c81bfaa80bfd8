"""The health of a run: losses that are not finite, spikes of the loss, data that comes late."""
