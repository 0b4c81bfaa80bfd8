"""The data sets of the library: mapped arrays, tokens, tables, spooled streams."""
