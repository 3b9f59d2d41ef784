def test_x(site):
    a = site.made("emoji-text", given__caption="owl", given__style="3d")
    print(a.status, a.body[:600])
    b = site.get("/")
    print(b.status, b.body[:100])
    assert 0
