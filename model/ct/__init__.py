"""Chest CT: a DICOM series as one volume, encoded slice by slice and judged as one bag."""
