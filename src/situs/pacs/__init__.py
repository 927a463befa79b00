"""Segmentations in a DICOM archive, labelled over DICOMweb. Needs the extra ``dicom``."""
