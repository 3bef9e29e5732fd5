"""The tables of every database that has no number. It may have been made by any program before numbers began."""

import sqlalchemy as sa
from alembic import op

revision = "v0001"
down_revision = None


def upgrade() -> None:
    """Whatever is missing of them."""
    op.create_table(
        "approvals",
        sa.Column("study_digest", sa.String(64), primary_key=True),
        sa.Column("site", sa.String(40), primary_key=True),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "cosigned",
        sa.Column("size", sa.Integer, primary_key=True),
        sa.Column("note", sa.LargeBinary, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "deployed",
        sa.Column("part", sa.String(40), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "endorsements",
        sa.Column("study_digest", sa.String(64), primary_key=True),
        sa.Column("model_digest", sa.String(64), primary_key=True),
        sa.Column("site", sa.String(40), primary_key=True),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "invitations",
        sa.Column("token_sha256", sa.String(64), primary_key=True),
        sa.Column("site", sa.String(40), nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("used_at", sa.Float),
        if_not_exists=True,
    )
    op.create_table(
        "journal",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("study_digest", sa.String(64), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "rounds",
        sa.Column("study_digest", sa.String(64), primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("plan", sa.LargeBinary, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "sites",
        sa.Column("site", sa.String(40), primary_key=True),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("spki_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("signing_key", sa.String(64), nullable=False, unique=True),
        sa.Column("ecdsa_key", sa.String(130), nullable=False, unique=True),
        sa.Column("enrolled_at", sa.Float, nullable=False),
        sa.Column("revoked_at", sa.Float),
        sa.Column("last_sequence", sa.Integer, nullable=False),
        sa.Column("last_event_sha256", sa.String(64), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "spends",
        sa.Column("study_digest", sa.String(64), primary_key=True),
        sa.Column("site", sa.String(40), primary_key=True),
        sa.Column("epsilon", sa.Float, nullable=False),
        sa.Column("delta", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "studies",
        sa.Column("study", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("submitted_at", sa.Float, nullable=False),
        sa.Column("next_round", sa.Integer, nullable=False),
        sa.Column("next_attempt", sa.Integer, nullable=False),
        sa.Column("last_attempt", sa.Integer, nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("transcript", sa.String(64), nullable=False),
        sa.Column("measured", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "witnesses",
        sa.Column("site", sa.String(40), primary_key=True),
        sa.Column("vkey", sa.String(512), nullable=False),
        if_not_exists=True,
    )
