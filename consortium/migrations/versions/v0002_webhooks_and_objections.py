"""How far webhooks have been told, and what witnesses of the log object to."""

import sqlalchemy as sa
from alembic import op

revision = "v0002"
down_revision = "v0001"


def upgrade() -> None:
    """Two new tables."""
    op.create_table(
        "webhooks",
        sa.Column("url", sa.String(1024), primary_key=True),
        sa.Column("next_leaf", sa.Integer, nullable=False),
    )
    op.create_table(
        "objections",
        sa.Column("witness", sa.String(512), primary_key=True),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("said", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
