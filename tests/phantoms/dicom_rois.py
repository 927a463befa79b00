"""DICOM segmentations (by highdicom) and structure sets of the phantoms' CT series."""

from __future__ import annotations

import warnings

import numpy as np

__all__ = ["write_rtstruct", "write_seg"]


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


def write_rtstruct(path, slices, structures, images=None, **tags):
    """Write a structure set of images (data sets).

    Args:
        path: The file.
        slices: The images that it names.
        structures: {number: (name, [(geometric type, (n, 3) points in LPS mm), ...])}.
        images: The SOPInstanceUIDs that it names instead.
        tags: Further tags of the file.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

    def item(**values):
        ds = Dataset()
        for name, value in values.items():
            setattr(ds, name, value)
        return ds

    first = slices[0]
    named = images or [ds.SOPInstanceUID for ds in slices]
    series = item(
        SeriesInstanceUID=first.SeriesInstanceUID,
        ContourImageSequence=[item(ReferencedSOPInstanceUID=uid) for uid in named],
    )
    study = item(RTReferencedSeriesSequence=[series])
    frame = item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])
    ds = item(
        SOPClassUID=RTStructureSetStorage,
        SOPInstanceUID=generate_uid(),
        Modality="RTSTRUCT",
        StudyInstanceUID=first.StudyInstanceUID,
        PatientName="SECRET^NAME",
        ReferencedFrameOfReferenceSequence=[frame],
        StructureSetROISequence=[
            item(ROINumber=number, ROIName=name) for number, (name, _) in structures.items()
        ],
        ROIContourSequence=[
            item(
                ReferencedROINumber=number,
                ContourSequence=[
                    item(
                        ContourGeometricType=kind,
                        NumberOfContourPoints=len(points),
                        ContourData=[f"{v:.4f}" for v in np.ravel(points)],
                    )
                    for kind, points in contours
                ],
            )
            for number, (_, contours) in structures.items()
        ],
        **tags,
    )
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(path, enforce_file_format=True)
