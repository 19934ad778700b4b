"""The forecast of a rebuild: what is not known is not foretold."""

from __future__ import annotations

from sandreel_projections.progress import Pacer, duration, line


def test_nothing_is_foretold_before_there_is_a_rate() -> None:
    pacer = Pacer()
    first = pacer.tell(100.0, 0, 1000, 0)
    assert (first.remaining_s, first.why, first.events_per_s) == (None, "not known yet", None)
    assert pacer.tell(102.0, 200, 800, 20).remaining_s is None
    later = pacer.tell(104.0, 400, 600, 40)
    assert (later.events_per_s, later.remaining_s, later.why) == (100.0, 6.0, "")
    assert later.share == 0.4


def test_what_pours_in_as_fast_has_no_end() -> None:
    pacer = Pacer()
    for second in range(10):
        told = pacer.tell(second, second * 100, 500, 0)
    assert (told.events_per_s, told.remaining_s, told.why) == (100.0, None, "events come as fast as they are read")
    stuck = Pacer()
    for second in range(10):
        told = stuck.tell(second, 7, 500, 0)
    assert (told.remaining_s, told.why) == (None, "nothing moves")


def test_the_rate_is_the_recent_one() -> None:
    pacer = Pacer()
    for second in range(60):
        done = second * 1000 if second < 30 else 30_000 + (second - 30) * 10
        told = pacer.tell(second, done, 100_000 - done, 0)
    assert told.events_per_s == 10.0
    assert told.remaining_s is not None
    assert round(told.remaining_s) == round((100_000 - told.done) / 10)


def test_one_line_that_fits() -> None:
    pacer = Pacer()
    pacer.tell(0, 0, 1_000_000, 0)
    told = pacer.tell(10, 250_000, 750_000, 0)
    text = line(told, "rebuilds", 110)
    assert "█" in text
    assert text.endswith(" 25.0 %  250,000 of about 1,000,000 events, 25,000 events/s, 30 s left")
    assert len(text) <= 110
    assert len(line(told, "rebuilds", 40)) == 40
    done = pacer.tell(20, 1_000_000, 0, 0)
    assert (done.remaining_s, done.share) == (0.0, 1.0)
    assert [duration(s) for s in (0.4, 59.6, 61, 3723)] == ["0 s", "1:00", "1:01", "1:02:03"]
