"""Plans that were found before, and what names them."""
