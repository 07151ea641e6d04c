"""The tables of enrolment: tokens without their secrets, and who enrolled with them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel


class EnrolmentTokenRow(SQLModel, table=True):
    """A token. Instants are seconds since the epoch."""

    __tablename__ = "enrolment_token"
    __table_args__ = (Index("enrolment_token_by_create_time", "create_time", "id"),)

    id: str = Field(primary_key=True, sa_type=Text)
    role: str = Field(sa_type=Text)
    uses: int = Field(sa_type=BigInteger)
    used_count: int = Field(sa_type=BigInteger)
    create_time: float = Field(sa_type=Double)
    expire_time: float = Field(sa_type=Double)
    revoke_time: float | None = Field(default=None, sa_type=Double)
    creator: str = Field(sa_type=Text)
    purpose: str = Field(default="", sa_type=Text)
    root_pem: str = Field(sa_type=Text)


class EnrolmentRow(SQLModel, table=True):
    """An identity that was given for a token; one for each key and role."""

    __tablename__ = "enrolment"
    __table_args__ = (UniqueConstraint("name", name="enrolment_name"),)

    public_key_digest: str = Field(primary_key=True, sa_type=Text)
    role: str = Field(primary_key=True, sa_type=Text)
    name: str = Field(sa_type=Text)
    display_name: str = Field(sa_type=Text)
    token_id: str = Field(sa_type=Text)
    code: str = Field(default="", sa_type=Text)
    enrol_time: float = Field(sa_type=Double)
