"""Accounts of people, and who submitted a study."""

import sqlalchemy as sa
from alembic import op

revision = "v0004"
down_revision = "v0003"


def upgrade() -> None:
    """Two new tables, and two columns for the studies."""
    op.create_table(
        "accounts",
        sa.Column("account", sa.String(40), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("spki_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("signing_key", sa.String(64), nullable=False, unique=True),
        sa.Column("enrolled_at", sa.Float, nullable=False),
        sa.Column("not_after", sa.Float, nullable=False),
        sa.Column("revoked_at", sa.Float),
    )
    op.create_table(
        "account_invitations",
        sa.Column("token_sha256", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(40), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("used_at", sa.Float),
    )
    op.add_column("studies", sa.Column("owner", sa.String(80), nullable=False, server_default=""))
    op.add_column("studies", sa.Column("submission", sa.Text, nullable=False, server_default=""))
