import threading
import time

import pytest

from crowdnerf_lab.kernels.turns import in_turn


def test_kernels_of_two_threads_do_not_meet():
    inside, most = [], []

    def kernel(number):
        inside.append(number)
        most.append(len(inside))
        time.sleep(0.01)
        inside.remove(number)
        return number

    called, found = in_turn(kernel), []
    threads = [threading.Thread(target=lambda n=n: found.append(called(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3]
    assert max(most) == 1


def test_a_failing_kernel_gives_its_turn_away():
    def failing():
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            in_turn(failing)()
    assert in_turn(lambda: 5)() == 5
