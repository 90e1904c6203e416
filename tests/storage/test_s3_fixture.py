"""The S3 server that tests share does what the protocol needs."""

import os
import threading

import pytest

import dmstore
from dmstore.storage.location import open_location


def test_one_of_many_creates_wins_and_a_study_lives_there(s3, study):
    url = s3()
    assert url != s3()
    objects = open_location(f"{url}/race")
    won = []

    def create(number):
        if objects.put_if_absent("log/1.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert objects.get("log/1.json") == str(won[0]).encode()
    from helpers import examples, fill

    made = dmstore.create_study(f"{url}/study", examples(), seed=3)
    algorithm = made.add_algorithm("a", runs=10)
    fill(algorithm, range(10))
    assert len(dmstore.open_study(f"{url}/study").runs("a").run) == 10


def test_environment_names_the_server(s3):
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    with pytest.raises(dmstore.DmstoreError) as caught:
        dmstore.open_study(f"{s3()}/nothing")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
