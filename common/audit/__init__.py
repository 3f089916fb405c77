"""Who did or saw what: chained so that tampering shows, and sent on as DICOM audit messages."""
