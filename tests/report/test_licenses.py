import pytest

from eyespot.report.licenses import Terms, hub_license, terms_of, verdict


@pytest.mark.parametrize(
    ("licence", "terms"),
    [
        ("apache-2.0", Terms.PERMISSIVE),
        ("Apache 2.0", Terms.PERMISSIVE),
        ("Apache-2.0", Terms.PERMISSIVE),
        ("MIT", Terms.PERMISSIVE),
        ("bsd-2-clause", Terms.PERMISSIVE),
        ("BSD-3-Clause", Terms.PERMISSIVE),
        ("cc0-1.0", Terms.PERMISSIVE),
        ("CC0", Terms.PERMISSIVE),
        ("cc-by-4.0", Terms.PERMISSIVE),
        ("MIT / Apache-2.0", Terms.PERMISSIVE),
        ("dinov3-license", Terms.CUSTOM),
        ("nvidia-open-model-license", Terms.CUSTOM),
        ("fair-noncommercial-research-license", Terms.NON_COMMERCIAL),
        ("cc-by-nc-4.0", Terms.NON_COMMERCIAL),
        ("CC BY-NC-SA 4.0", Terms.NON_COMMERCIAL),
        ("Some Non-Commercial Licence", Terms.NON_COMMERCIAL),
        ("apache-2.0 and cc-by-nc-4.0", Terms.NON_COMMERCIAL),
        ("other", Terms.UNKNOWN),
        ("unknown", Terms.UNKNOWN),
        ("concept-licence", Terms.UNKNOWN),
        ("", Terms.UNKNOWN),
        (None, Terms.UNKNOWN),
    ],
)
def test_terms_of_a_licence(licence, terms):
    assert terms_of(licence) is terms


@pytest.mark.parametrize(
    ("licences", "terms", "commercial", "decisive"),
    [
        (["apache-2.0", "MIT", "mit"], Terms.PERMISSIVE, True, ("apache-2.0", "mit")),
        (["apache-2.0", "dinov3-license"], Terms.CUSTOM, None, ("dinov3-license",)),
        (["apache-2.0", None], Terms.UNKNOWN, None, ()),
        (["dinov3-license", "other"], Terms.UNKNOWN, None, ("other",)),
        (["apache-2.0", None, "cc-by-nc-4.0"], Terms.NON_COMMERCIAL, False, ("cc-by-nc-4.0",)),
        ([], Terms.UNKNOWN, None, ()),
    ],
)
def test_the_strictest_licence_decides(licences, terms, commercial, decisive):
    judged = verdict(licences)
    assert (judged.terms, judged.commercial_use, judged.licences) == (terms, commercial, decisive)
    assert verdict(reversed(licences)) == judged


def test_the_verdict_is_plain():
    assert "may be used commercially: every teacher" in verdict(["mit"]).sentence
    assert "may not be used commercially: cc-by-nc-4.0" in verdict(["mit", "cc-by-nc-4.0"]).sentence
    assert "custom terms of dinov3-license and gemma" in verdict(["gemma", "dinov3-license"]).sentence
    assert "no licence is stated for at least one teacher" in verdict(["mit", None]).sentence
    assert "no teacher is listed" in verdict([]).sentence


@pytest.mark.parametrize(
    ("licences", "header"),
    [
        (["apache-2.0"], {"license": "apache-2.0"}),
        (["mit", "cc-by-nc-4.0"], {"license": "cc-by-nc-4.0"}),
        (["mit", "apache-2.0"], {"license": "other", "license_name": "apache-2.0-and-mit"}),
        (["dinov3-license"], {"license": "other", "license_name": "dinov3-license"}),
        ([None], {"license": "other", "license_name": "unknown"}),
    ],
)
def test_the_licence_fields_of_a_card(licences, header):
    assert hub_license(verdict(licences)) == header
