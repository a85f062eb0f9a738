"""Search spaces: parameters, the space itself, and TOML files of spaces."""
