"""DICOM: CT series as scans; segmentations and structure sets as regions."""
