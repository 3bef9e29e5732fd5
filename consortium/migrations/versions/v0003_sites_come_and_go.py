"""Hospitals that are suspended, whose certificate is renewed, and which legal entity each one is."""

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"


def upgrade() -> None:
    """More columns of hospitals and of invitations; nobody is suspended, and no legal entity is known."""
    op.add_column("invitations", sa.Column("legal_entity", sa.Text, nullable=False, server_default=""))
    op.add_column("sites", sa.Column("legal_entity", sa.Text, nullable=False, server_default=""))
    op.add_column("sites", sa.Column("suspended_at", sa.Float))
    op.add_column("sites", sa.Column("reason", sa.Text, nullable=False, server_default=""))
    op.add_column("sites", sa.Column("next_certificate", sa.LargeBinary))
    op.add_column("sites", sa.Column("next_spki_sha256", sa.String(64)))
    op.add_column("sites", sa.Column("previous_spki_sha256", sa.String(64)))
    op.add_column("sites", sa.Column("previous_until", sa.Float))
