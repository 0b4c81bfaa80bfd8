"""The networks that the video application trains."""
