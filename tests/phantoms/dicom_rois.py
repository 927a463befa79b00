"""DICOM segmentations of the phantoms' CT series, written by highdicom."""

from __future__ import annotations

import warnings

import numpy as np

__all__ = ["write_seg"]


def write_seg(path, slices, masks, kind="BINARY", names=None, **options):
    """Write a SEG of images (data sets), each mask (segments, images, rows, columns)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import highdicom as hd
        from highdicom.seg import (
            Segmentation,
            SegmentationTypeValues,
            SegmentDescription,
        )
        from pydicom.sr.codedict import codes

        for ds in slices:  # highdicom asks for tags that may be empty
            ds.PatientBirthDate = ds.PatientSex = ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ""
            ds.StudyID = ds.ReferringPhysicianName = ""
        masks = np.asarray(masks)
        algorithm = hd.AlgorithmIdentificationSequence("test", codes.DCM.ArtificialIntelligence, "1")
        descriptions = [
            SegmentDescription(
                number,
                (names or {}).get(number, f"segment {number}"),
                codes.SCT.MorphologicallyAbnormalStructure,
                codes.SCT.Lesion,
                hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm,
            )
            for number in range(1, len(masks) + 1)
        ]
        if kind == "LABELMAP":
            numbers = np.arange(1, len(masks) + 1, dtype=np.uint8)[:, None, None, None]
            pixels = (masks * numbers).max(axis=0).astype(np.uint8)
        else:
            pixels = np.moveaxis(masks, 0, -1)
        seg = Segmentation(
            source_images=slices,
            pixel_array=pixels
            if kind == "LABELMAP"
            else pixels.astype(float if kind == "FRACTIONAL" else np.uint8),
            segmentation_type=SegmentationTypeValues[kind],
            segment_descriptions=descriptions,
            series_instance_uid=hd.UID(),
            series_number=9,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="Test",
            manufacturer_model_name="Test",
            software_versions="1",
            device_serial_number="1",
            **options,
        )
    seg.save_as(path)
