"""`bench data show` tells what somebody needs to know before using a data set."""


def test_a_card_tells_parts_patients_regions_and_what_utility_is_worth(bench):
    card = bench("data", "show", "medslices", "--json").json
    assert card["images_by_part"] == {"private": 73, "public": 21, "evaluation": 0, "test": 84}
    assert card["patients_or_sources_in_private"] == 2
    assert card["classes"] == ["chest CT", "head MR"]
    assert card["sensitive_regions"] == "marked"
    assert card["ranked_by_utility"] is False
    assert bench("data", "show", "digits", "--json").json["ranked_by_utility"] is True


def test_the_same_in_words(bench):
    shown = bench("data", "show", "medslices")
    assert shown.code == 0
    for line in ("ranked by utility: no", "patients or sources in private: 2", "sensitive regions: marked"):
        assert f"  {line}\n" in shown.out
    assert "sensitive regions" not in bench("data", "show", "digits").out
