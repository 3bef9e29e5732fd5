"""Signing keys that hospitals changed."""

import sqlalchemy as sa
from alembic import op

revision = "v0006"
down_revision = "v0005"


def upgrade() -> None:
    """One new table."""
    op.create_table(
        "former_keys",
        sa.Column("signing_key", sa.String(64), primary_key=True),
        sa.Column("ecdsa_key", sa.String(130), nullable=False, unique=True),
        sa.Column("site", sa.String(40), nullable=False),
        sa.Column("enrolled_at", sa.Float, nullable=False),
    )
