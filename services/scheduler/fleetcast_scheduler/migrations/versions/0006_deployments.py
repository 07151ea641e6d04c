"""Deployments, their runs, and when machines may begin."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns and makes the tables."""
    with op.batch_alter_table("machine") as machine:
        machine.add_column(sa.Column("time_zone", sa.Text, nullable=False, server_default=""))
    with op.batch_alter_table("collection") as collection:
        collection.add_column(sa.Column("maintenance_windows", sa.JSON, nullable=False, server_default="[]"))
    with op.batch_alter_table("session") as session:
        session.add_column(sa.Column("deployment", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "attendance",
        sa.Column("machine", sa.Text, primary_key=True),
        sa.Column("contact_time", sa.Double, nullable=False),
    )
    op.create_table(
        "deployment",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("available_time", sa.Text, nullable=False),
        sa.Column("deadline_time", sa.Text, nullable=False),
        sa.Column("expiry_time", sa.Text, nullable=False),
        sa.Column("rerun", sa.Text, nullable=False),
        sa.Column("max_run_seconds", sa.Double, nullable=False),
        sa.Column("ignore_maintenance_windows", sa.Boolean, nullable=False),
        sa.Column("wake", sa.Boolean, nullable=False),
        sa.Column("phases", sa.JSON, nullable=False),
        sa.Column("current_phase", sa.BigInteger, nullable=False),
        sa.Column("phase_success_time", sa.Double),
        sa.Column("variables", sa.JSON, nullable=False),
        sa.Column("session", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False, index=True),
        sa.Column("waiting_reason", sa.Text, nullable=False),
        sa.Column("create_time", sa.Double, nullable=False),
        sa.Column("end_time", sa.Double),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.Column("settled", sa.Boolean, nullable=False, index=True),
        sa.Column("traceparent", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False, index=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("edit_count", sa.BigInteger, nullable=False),
    )
    op.create_index("deployment_by_create_time", "deployment", ["create_time", "name"])
    op.create_table(
        "deployment_content",
        sa.Column("deployment", sa.Text, primary_key=True),
        sa.Column("task_sequence", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("images", sa.JSON, nullable=False),
        sa.Column("uploads", sa.JSON, nullable=False),
    )
    op.create_table(
        "run",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("wanted", sa.Boolean, nullable=False),
        sa.Column("excepted", sa.Boolean, nullable=False),
        sa.Column("progress", sa.JSON, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("output_tail", sa.Text, nullable=False),
        sa.Column("create_time", sa.Double, nullable=False),
        sa.Column("start_time", sa.Double),
        sa.Column("limit_time", sa.Double),
        sa.Column("pause_time", sa.Double),
        sa.Column("restart_time", sa.Double),
        sa.Column("end_time", sa.Double),
        sa.Column("contact_time", sa.Double),
        sa.Column("ending", sa.JSON),
        sa.Column("wake_time", sa.Double),
        sa.Column("wake_count", sa.BigInteger, nullable=False),
        sa.Column("has_log", sa.Boolean, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_index("run_by_deployment", "run", ["deployment", "create_time", "name"])
    op.create_index("run_by_machine", "run", ["machine", "create_time", "name"])
    op.create_table(
        "run_step",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("step_name", sa.Text, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("start_time", sa.Double),
        sa.Column("end_time", sa.Double),
    )
    op.create_table(
        "run_log",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Takes them away again."""
    for table in ("run_log", "run_step", "run", "deployment_content", "deployment", "attendance"):
        op.drop_table(table)
    with op.batch_alter_table("session") as session:
        session.drop_column("deployment")
    with op.batch_alter_table("collection") as collection:
        collection.drop_column("maintenance_windows")
    with op.batch_alter_table("machine") as machine:
        machine.drop_column("time_zone")
