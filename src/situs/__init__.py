"""situs names the anatomical site of any lesion in a head CT.

>>> from situs import Labeler, read_volume, read_rois        # doctest: +SKIP
>>> volume = read_volume("scan.nii.gz")                       # doctest: +SKIP
>>> findings = Labeler.load().label(volume, read_rois("mask.nii.gz", volume))  # doctest: +SKIP

Research software, not a medical device.
"""

__version__ = "0.1.0"
