"""A simulated scanner: phantoms as DICOM objects, sent by C-STORE, with their expected fate."""
