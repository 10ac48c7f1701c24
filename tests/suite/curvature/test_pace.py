from suite.curvature.pace import Pace


class Telling:
    """A pace with a clock that is set by hand."""

    def __init__(self, num_probes: int, num_products: int) -> None:
        self.now_s, self.told = 100.0, []
        self.pace = Pace(num_probes, num_products, lambda *told: self.told.append(told), lambda: self.now_s)


def test_speed_and_remaining_time_come_from_what_is_done():
    telling = Telling(4, 200)
    telling.now_s += 2.0
    telling.pace.finish(50)
    assert telling.told == [(0.25, "probe 1 of 4, 25 products/s, 6.0 s left")]


def test_products_of_unfinished_probes_count():
    telling = Telling(2, 100)
    telling.now_s += 10.0
    telling.pace.running(25)
    assert telling.told == [(0.25, "probe 0 of 2, 2.5 products/s, 30 s left")]


def test_waiting_for_the_first_probe_says_nothing_about_the_speed():
    telling = Telling(2, 100)
    telling.now_s += 1000.0
    telling.pace.running(0)
    telling.now_s += 5.0
    telling.pace.running(0)  # the first product takes its time
    telling.now_s += 5.0
    telling.pace.running(50)
    assert telling.told == [(0.5, "probe 0 of 2, 5 products/s, 10 s left")]


def test_a_finished_probe_is_not_counted_twice():
    telling = Telling(2, 100)
    telling.now_s += 10.0
    telling.pace.running(80)
    telling.pace.finish(50)
    telling.pace.running(30)
    telling.now_s += 10.0
    telling.pace.finish(50)
    assert [fraction for fraction, _ in telling.told] == [0.8, 0.8, 1.0]
    assert telling.told[-1][1] == "probe 2 of 2, 5 products/s"


def test_nothing_is_told_twice():
    telling = Telling(2, 100)
    telling.now_s += 1.0
    telling.pace.running(10)
    telling.pace.running(10)
    assert len(telling.told) == 1
