"""Provenance: whatever a model makes says so, in the file's own metadata, in its pixels or words, and signed.

record      what a label says, and whether it still belongs to the content that it names
containers  where each kind of file keeps it: rasters (PNG, JPEG, GIF, WebP), audio (WAV, MP3, MIDI), written (JSON)
labelling   labels everything that is written inside a ``with`` block; a sidecar where a file has no room of its own
signing     keys, certificates and C2PA
visible     the mark that people see
spectrum    a watermark in the pixels;  ``samplers.greenlist`` is one in words
verifying   reads all of it, of any file; generators and marks find what others and watermarks leave
"""
