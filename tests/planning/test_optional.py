from veloxseg.planning.optional import absent_channels


def test_what_is_absent_is_read_from_our_properties_and_from_nnunets_own():
    assert absent_channels({"absent_channels": [0, 2]}) == (0, 2)
    assert absent_channels({"spacing": [1, 1, 1]}) == ()
