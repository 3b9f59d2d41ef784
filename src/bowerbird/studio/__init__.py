"""The studio: one page in the browser to make, train, look and read.  Server-rendered, nothing from elsewhere."""
