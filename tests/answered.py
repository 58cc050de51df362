"""What a site's gate makes of one message, by the site's real app."""

import client.app
from client.runfiles import AUDIT
from vgmedgen.trust.journal import Journal


def opened(site):
    return client.app.build(lambda context: site)


def ask(site, message):
    return opened(site)(message, None)


def log_of(site):
    journal = Journal(site.folder / AUDIT)
    journal.verify()
    return journal.entries()


def code(reply):
    assert reply.has_error()
    assert reply.error.code == 100
    assert not reply.has_content()
    return reply.error.reason
