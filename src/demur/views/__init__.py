"""What a person is shown: scenes (plain, redacted data) and the HTML page that plays them, with its CSS and JS.

``scene`` is what every view reads, ``page`` makes one HTML page of scenes, ``files`` are the page's own parts; the
report's pages wear the same.
"""
