"""The public HTTP door: a request from its first byte to its settlement."""
