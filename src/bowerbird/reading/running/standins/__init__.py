"""Stand-ins: what takes the place of data, devices, packages and names that are not there.  Each is named as such."""
