"""Every consumer of files works on channel ends: the standard library's, and those of well-known packages."""
