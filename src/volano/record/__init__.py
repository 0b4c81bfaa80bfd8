"""The files on disk: folders of runs and studies, their lock, their reading. Imports no torch."""
