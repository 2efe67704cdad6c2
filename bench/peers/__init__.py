"""Other people's compositors, run as programs of their own on the same frames."""
