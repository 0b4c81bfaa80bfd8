"""The command line: parses, calls the verbs of api, prints."""
