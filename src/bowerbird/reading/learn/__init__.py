"""Learning by doing: a path per subject, and exercises that are checked by running the answer."""
