import re

import pytest
from phantoms import REPO
from pydicom.sr.codedict import codes

from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES, Site, SiteList, read_sites, sites_csv
from situs.errors import InputError

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


def test_every_site_has_a_name_and_a_compartment():
    assert all(site.name for site in SITES)
    assert {site.groups["compartment"] for site in SITES} == set(
        ["parenchyma", "subarachnoid", "ventricular", "dural", "sinus"]
    )


def test_the_documented_groups_are_these():
    text = (REPO / "docs" / "sites.md").read_text().partition("## Groups")[2].partition("## Your own list")[0]
    documented, grouping = {}, ""
    for name, group, sites in re.findall(r"^\| (\w*) ?\| (\w+) \| (.+) \|$", text, re.MULTILINE)[1:]:
        grouping = name or grouping
        for key in re.findall(r"`(\w+)`", sites):
            documented.setdefault(grouping, {})[key] = group
    assert tuple(documented) == SITES.groupings == ("compartment", "tentorium", "ich_location")
    for grouping, groups in documented.items():
        assert groups == {s.key: s.groups[grouping] for s in SITES if s.groups[grouping]}


def test_a_group_is_shared_if_all_sites_are_in_it():
    of_two_lobes = SITES.shared_groups(["frontal_region", "parietal_region"])
    assert of_two_lobes == {
        "compartment": "parenchyma", "tentorium": "supratentorial", "ich_location": "lobar",
    }  # fmt: skip
    assert SITES.shared_groups(["thalamus", "brainstem"]) == {
        "compartment": "parenchyma", "tentorium": None, "ich_location": None,
    }  # fmt: skip
    # A group of one of them is not shared by one that has none.
    assert SITES.shared_groups(["frontal_region", "sulcal_spaces"]) == dict.fromkeys(SITES.groupings)
    assert SITES.shared_groups(["ethmoidal", "maxillary"]) == {
        "compartment": "sinus", "tentorium": None, "ich_location": None,
    }  # fmt: skip


def test_what_lies_across_the_midline_is_not_paired():
    assert {s.key for s in SITES if not s.paired} == {"along_falx_tentorium", "basal_cisterns", "brainstem"}


def test_a_snomed_code_stands_in_its_context_group_with_the_same_meaning():
    """The oracle: pydicom's dictionaries, generated from DICOM PS3.16."""
    coded = [site for site in SITES if site.code_source != "situs"]
    for site in coded:
        group = getattr(codes, f"CID{site.code_source.removeprefix('context group ')}")
        listed = [getattr(group, keyword) for keyword in group.dir(site.code_meaning.replace(" ", ""))]
        assert (site.code, "SCT", site.code_meaning) in {tuple(code)[:3] for code in listed}
        assert _verhoeff_is_valid(site.code)
    assert len(coded) == 9
    assert not _verhoeff_is_valid("15926010")  # two digits swapped


def test_a_lobe_has_the_code_of_that_lobe():
    by_key = {site.key: site.code for site in SITES}
    for key, code in (
        ("frontal_region", codes.SCT.FrontalLobe),
        ("parietal_region", codes.SCT.ParietalLobe),
        ("temporal_region", codes.SCT.TemporalLobe),
        ("occipital_region", codes.SCT.OccipitalLobe),
    ):
        assert by_key[key] == code.value


def test_every_code_fits_into_a_dicom_file():
    """DICOM PS3.5, 6.2: value and scheme have at most 16 characters, the meaning at most 64."""
    for site in SITES:
        assert 0 < len(site.code) <= 16 and 0 < len(site.code_meaning) <= 64
        assert site.code_scheme == ("99SITUS" if site.code_source == "situs" else "SCT")
    assert len({site.code for site in SITES}) == 15


def test_the_documented_codes_are_these():
    text, *_ = (REPO / "docs" / "sites.md").read_text().partition("## Groups")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE)
    assert {key: cells.split(" | ") for key, cells in rows} == {
        site.key: [site.code_scheme, site.code, site.code_meaning, site.code_source] for site in SITES
    }
    assert [key for key, _ in rows] == list(SITE_KEYS)


def test_the_codes_named_as_too_wide_or_too_narrow_are_those_of_the_dictionaries():
    """Of the SNOMED CT codes in prose, too, each has the documented meaning."""
    named = re.findall(r"([A-Z][\w ]+) \((\d+)\)", (REPO / "docs" / "sites.md").read_text())
    dictionary = {(code.meaning, code.value) for code in codes.SCT.concepts.values()}
    assert len(named) == 9 and set(named) <= dictionary


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


# --- lists of one's own ---


def test_a_list_is_read_as_it_was_written(tmp_path):
    sites = SiteList(
        [
            Site("brain", "Brain", paired=True, groups={"territory": "", "lobe": "all, of course"}),
            Site(
                "hippocampus", "Hippocampus", parent="brain", groups={"territory": "PCA", "lobe": "temporal"}
            ),
        ]
    )
    assert sites.groupings == ("territory", "lobe")
    (tmp_path / "sites.csv").write_text(sites_csv(sites), encoding="utf-8")
    assert read_sites(tmp_path / "sites.csv") == sites
    (tmp_path / "sites.csv").write_text("key\nleft_orbit\n")
    assert read_sites(tmp_path / "sites.csv") == (Site("left_orbit", "left orbit"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nBrain\n", "lacks the column 'key'"),
        ("key\n", "expected 1 to 250 sites, got 0"),
        ("key\nbrain\nbrain\n", "brain: the key comes twice"),
        ("key\n\nBrain\n", "'Brain': expected a key of small letters"),
        ("key,name\na,Brain\nb,brain \n", "sites a and b have the same name"),
        ("key,parent\nbrain,hed\nhead,\n", "no parent 'hed'; did you mean 'head'"),
        ("key,parent\na,b\nb,c\nc,a\n", "site a: its parents form a circle"),
        ("key,parent\na,a\n", "site a: its parents form a circle"),
        ("key,group\na,csf\n", "column 'group': call it group_WORD"),
        ("key,group_A-Z\na,b\n", "grouping 'A-Z': expected small letters"),
        ("key," + ",".join(f"group_a{n}" for n in range(21)) + "\na\n", "at most 20 groupings, got 21"),
        (f"key,group_a\nb,{'x' * 201}\n", "is longer than 200 letters"),
        ("key,paired\na,yes\n", "paired: expected 0 or 1, got 'yes'"),
        ("key,code\na,123\n", "a code needs a code_scheme"),
        (f"key,name\na,{'x' * 201}\n", "is longer than 200 letters"),
    ],
)
def test_a_list_that_is_none_is_one_line(tmp_path, text, message):
    (tmp_path / "sites.csv").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_sites(tmp_path / "sites.csv")
    assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path))
