"""Synthetic head CTs: label map → site map → virtual scan → virtual lesions → cohort."""
