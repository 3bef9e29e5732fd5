"""Hospitals' stewards' keys, and the signatures under their approvals."""

import sqlalchemy as sa
from alembic import op

revision = "v0005"
down_revision = "v0004"


def upgrade() -> None:
    """Two new tables. What the log has of them already is read when the home is opened."""
    op.create_table(
        "steward_keys",
        sa.Column("site", sa.String(40), primary_key=True),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("steward", sa.String(80), nullable=False),
        sa.Column("standing", sa.Boolean, nullable=False),
    )
    op.create_table(
        "steward_signatures",
        sa.Column("site", sa.String(40), primary_key=True),
        sa.Column("study_digest", sa.String(64), primary_key=True),
        sa.Column("sig", sa.String(88), primary_key=True),
        sa.Column("used_up", sa.Boolean, nullable=False),
    )
