import pytest
import timm

from eyespot.encoders.licenses import (
    Terms,
    hub_license,
    normalised,
    refuse_restricted,
    terms_of,
    timm_license,
    verdict,
)

IN_TIMM = {
    # every value of `license` in the registry of timm 1.0.31
    "apache-2.0": Terms.PERMISSIVE,
    "mit": Terms.PERMISSIVE,
    "bsd-3-clause": Terms.PERMISSIVE,
    "cc-by-4.0": Terms.PERMISSIVE,
    "apple-ascl": Terms.CUSTOM,
    "cvnets-license": Terms.CUSTOM,
    "dinov3-license": Terms.CUSTOM,
    "fastvit-license": Terms.CUSTOM,
    "gemma": Terms.CUSTOM,
    "mobileone-license": Terms.CUSTOM,
    "nvidia-open-model-license": Terms.CUSTOM,
    "qwen-community-1.0": Terms.CUSTOM,
    "sapiens2-license": Terms.UNKNOWN,
    "unknown": Terms.UNKNOWN,
    None: Terms.UNKNOWN,
    "apple-amlr": Terms.NON_COMMERCIAL,
    "cc-by-nc-4.0": Terms.NON_COMMERCIAL,
    "fair-noncommercial-research-license": Terms.NON_COMMERCIAL,
    "seer-license": Terms.NON_COMMERCIAL,
}


def test_every_licence_of_timm_is_judged():
    found = {timm.get_pretrained_cfg(name).license for name in timm.list_models(pretrained=True)}
    assert {licence: terms_of(licence) for licence in found & IN_TIMM.keys()}.items() <= IN_TIMM.items()
    # what a newer timm may bring is not taken for permissive before somebody has read it
    assert all(terms_of(licence) is not Terms.PERMISSIVE for licence in found - IN_TIMM.keys())


def test_what_the_makers_of_weights_state_counts_where_timm_is_laxer():
    configurations = {name: timm.get_pretrained_cfg(name).to_dict() for name in timm.list_models(pretrained=True)}
    corrected = {n: timm_license(cfg) for n, cfg in configurations.items() if timm_license(cfg) != cfg.get("license")}
    families = {name: ("aimv2_" in name, ".dfn" in name, ".pali" in name) for name in corrected}
    assert all(any(family) for family in families.values())
    assert all(any(family) for family in zip(*families.values(), strict=True))
    for name, licence in corrected.items():
        assert terms_of(licence) > terms_of(configurations[name]["license"])
    assert timm_license(configurations["vit_base_patch16_siglip_256.v2_webli"]) == "apache-2.0"
    assert timm_license({}) is None


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("Apache License 2.0", "apache-2.0"),
        ("MIT License", "mit"),
        ("BSD 3-Clause License", "bsd-3-clause"),
        ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("NVIDIA Open Model License Agreement", "nvidia-open-model-license"),
        ("apple-sample-code-license", "apple-ascl"),
        ("DINOv3 Licence", "dinov3-license"),
        ("Licence of Ours", "licence-of-ours"),
    ],
)
def test_spellings(stated, name):
    assert normalised(stated) == name


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
        ("apache-2.0-and-mit", Terms.PERMISSIVE),
        ("naver-nc", Terms.NON_COMMERCIAL),
        ("h-research", Terms.NON_COMMERCIAL),
        ("gpl-3.0-only", Terms.CUSTOM),
        ("AGPL-3.0", Terms.CUSTOM),
        ("llama3.3", Terms.CUSTOM),
        ("openrail++", Terms.CUSTOM),
        ("cc-by-nd-4.0", Terms.CUSTOM),
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
        (["mobileone-license", "gemma"], {"license": "other", "license_name": "gemma-and-mobileone-license"}),
        (["apple-amlr"], {"license": "apple-amlr"}),
        (["sapiens2-license"], {"license": "other", "license_name": "sapiens2-license"}),
        (["cc-by-nc"], {"license": "other", "license_name": "cc-by-nc"}),
        ([None], {"license": "unknown"}),
        ([], {"license": "unknown"}),
    ],
)
def test_the_licence_fields_of_a_card(licences, header):
    assert hub_license(verdict(licences)) == header


def test_a_custom_licence_is_linked_to_its_text():
    fields = hub_license(verdict(["mit", "dinov3-license"]))
    assert fields.keys() == {"license", "license_name", "license_link"}
    assert (fields["license"], fields["license_name"]) == ("other", "dinov3-license")
    assert fields["license_link"].startswith("https://ai.meta.com/")


@pytest.mark.parametrize("licences", [["mit", "naver-nc", None], ["dinov3-license", "gemma"], ["mit", "apache-2.0"]])
def test_what_a_card_says_is_read_back_with_the_same_terms(licences):
    judged = verdict(licences)
    fields = hub_license(judged)
    assert terms_of(fields.get("license_name", fields["license"])) is judged.terms


def test_the_verdict_of_one_model_is_a_word():
    labels = [terms.label for terms in Terms]
    assert labels == ["commercial use", "custom terms", "unknown", "non-commercial"]


def test_restricted_models_are_refused_by_name_with_their_licence_and_a_way_out():
    models = {"a": ["mit"], "b": ["mit", "cc-by-nc-4.0"], "c": [None], "d": [], "e": ["dinov3-license"]}
    with pytest.raises(ValueError, match="permissive_only") as refusal:
        refuse_restricted(models)
    assert str(refusal.value).splitlines()[1:-1] == [
        "  b: non-commercial (cc-by-nc-4.0)",
        "  c: unknown (no licence stated)",
        "  d: unknown (no licence stated)",
        "  e: custom terms (dinov3-license)",
    ]
    assert "preset `permissive`" in str(refusal.value) and "?license=mit" in str(refusal.value)
    refuse_restricted({"a": ["mit"], "b": ["Apache 2.0", "cc-by-4.0"]})
