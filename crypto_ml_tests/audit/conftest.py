"""A deployment whose evidence was verified, made once for all tests that change it and look again."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from crypto_ml.storage.objects import connect
from crypto_ml_tests.audit.verified_site import Site


@pytest.fixture(scope="session")
def whole_site(bucket: str) -> Site:
    """The deployment as it was made."""
    return Site.made(connect(bucket, f"tests/{uuid4().hex}"))


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """The deployment, on which nothing stays that a test has done."""
    with whole_site.put_back():
        yield whole_site
