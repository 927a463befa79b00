from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES

# The 15 keys as the paper's table orders them.
KEYS = [
    "along_falx_tentorium", "basal_cisterns", "brainstem", "cerebellum", "ethmoidal", "frontal_region",
    "gangliocapsular_region", "maxillary", "occipital_region", "parietal_region", "sphenoid", "sulcal_spaces",
    "temporal_region", "thalamus", "ventricular_system",
]  # fmt: skip


def test_the_sites_are_the_papers_in_its_order():
    assert list(SITE_KEYS) == KEYS == sorted(KEYS)


def test_the_index_is_the_position():
    assert [SITE_INDEX[site.key] for site in SITES] == list(range(15))


def test_every_site_has_a_name_and_a_known_group():
    assert all(site.name for site in SITES)
    assert {site.group for site in SITES} == {"parenchyma", "csf", "extra-axial", "sinus"}


def test_what_lies_across_the_midline_is_not_paired():
    assert {s.key for s in SITES if not s.paired} == {"along_falx_tentorium", "basal_cisterns", "brainstem"}


def test_a_snomed_code_comes_with_its_meaning():
    for site in SITES:
        assert bool(site.snomed_code) == bool(site.snomed_meaning)
        assert site.snomed_code == "" or _verhoeff_is_valid(site.snomed_code)
    assert not _verhoeff_is_valid("15926010")  # two digits swapped


def _verhoeff_is_valid(code):
    """SNOMED CT identifiers end in a Verhoeff check digit (SNOMED CT Release File Specification, 2.1)."""
    multiply = [[(a + b) % 5 if a < 5 and b < 5 else 0 for b in range(10)] for a in range(10)]
    for a in range(10):
        for b in range(10):
            if a < 5 and b >= 5:
                multiply[a][b] = (a + b - 5) % 5 + 5
            elif a >= 5 and b < 5:
                multiply[a][b] = (a - 5 - b) % 5 + 5
            elif a >= 5 and b >= 5:
                multiply[a][b] = (a - b) % 5
    permute = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
    for n in range(2, 8):
        permute.append([permute[n - 1][permute[1][d]] for d in range(10)])
    check = 0
    for n, digit in enumerate(reversed(code)):
        check = multiply[check][permute[n % 8][int(digit)]]
    return check == 0
