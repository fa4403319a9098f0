import pytest

from crowdnerf_lab.captures.bundle import Consent
from crowdnerf_lab.network.api.database import FILE, Database
from crowdnerf_lab.network.api.events import Events, Joining
from crowdnerf_lab.network.api.tokens import (
    OPERATOR_FILE,
    TokenError,
    holder_of,
    operator_token,
    remove_expired,
    revoke,
)

PHONE = Joining("a phone", None, Consent(train=True, publish=False), "CC0-1.0")


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path)
    Events(database).make("concert")
    return database


def test_a_token_tells_its_holder(database):
    joined = Events(database).join("concert", PHONE, hours=1)
    holder = holder_of(database, joined.token.text)
    assert (holder.role, holder.event, holder.ue) == ("ue", "concert", joined.ue)


def test_tokens_are_not_stored(database, tmp_path):
    joined = Events(database).join("concert", PHONE, hours=1)
    database.connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert joined.ue.encode() in (tmp_path / FILE).read_bytes()
    assert joined.token.text.encode() not in (tmp_path / FILE).read_bytes()


def test_no_two_are_alike(database):
    events = Events(database)
    joined = [events.join("concert", PHONE, hours=1) for _ in range(20)]
    assert len({each.token.text for each in joined}) == len({each.ue for each in joined}) == 20


@pytest.mark.parametrize("text", ["", "x", "\ud800", "é" * 50, "x" * 100_000])
def test_an_unknown_token_is_refused(database, text):
    with pytest.raises(TokenError, match="unknown"):
        holder_of(database, text)


def test_an_expired_token_is_refused_and_forgotten_in_the_end(database):
    short = Events(database).join("concert", PHONE, hours=-1e-9)
    old = Events(database).join("concert", PHONE, hours=-24 * 30)
    with pytest.raises(TokenError, match="expired"):
        holder_of(database, short.token.text)
    assert remove_expired(database) == 1
    with pytest.raises(TokenError, match="expired"):
        holder_of(database, short.token.text)
    with pytest.raises(TokenError, match="unknown"):
        holder_of(database, old.token.text)


def test_a_revoked_token_is_refused_and_no_other(database):
    events = Events(database)
    one, other = events.join("concert", PHONE, hours=1), events.join("concert", PHONE, hours=1)
    with database.transaction() as rows:
        assert revoke(rows, event="concert", ue=one.ue) == 1
    with pytest.raises(TokenError, match="revoked"):
        holder_of(database, one.token.text)
    assert holder_of(database, other.token.text).ue == other.ue


def test_renewing_ends_the_old_token(database):
    events = Events(database)
    joined = events.join("concert", PHONE, hours=1)
    first = holder_of(database, joined.token.text)
    renewed = events.renew("concert", joined.ue, token_sha256=first.sha256, hours=1)
    assert holder_of(database, renewed.text).ue == joined.ue
    with pytest.raises(TokenError, match="revoked"):
        holder_of(database, joined.token.text)
    with pytest.raises(ValueError, match="ended meanwhile"):
        events.renew("concert", joined.ue, token_sha256=first.sha256, hours=1)


def test_the_operators_token_stays_until_its_file_goes(database, tmp_path):
    token = operator_token(database, tmp_path)
    assert (tmp_path / OPERATOR_FILE).stat().st_mode & 0o777 == 0o600
    assert operator_token(database, tmp_path) == token
    assert holder_of(database, token).role == "operator"
    (tmp_path / OPERATOR_FILE).unlink()
    newer = operator_token(database, tmp_path)
    assert holder_of(database, newer).role == "operator"
    with pytest.raises(TokenError, match="revoked"):
        holder_of(database, token)
