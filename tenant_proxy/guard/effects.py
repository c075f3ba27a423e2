"""What kinds of statements do, and which are refused whatever they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from tenant_proxy.model import Effect

_R, _W = int(Effect.READS), int(Effect.WRITES)
_DDL = int(Effect.DDL) | _W
_GROWS = int(Effect.GROWS)

#: definitions that take room, however little
_CREATES: Final = frozenset(
    {
        *("CompositeTypeStmt", "CreateCastStmt", "CreateDomainStmt", "CreateEnumStmt", "CreateFunctionStmt"),
        *("CreatePolicyStmt", "CreateRangeStmt", "CreateSeqStmt", "CreateStatsStmt", "CreateTrigStmt"),
        *("DefineStmt", "IndexStmt", "RuleStmt", "ViewStmt"),
    }
)
_OPAQUE = int(Effect.OPAQUE) | _R | _W


class Statement(NamedTuple):
    """`effects` are those that every statement of the kind has; rules add the rest."""

    effects: int
    #: whether literals decide: false only for kinds whose rules look at none (or at none but function
    #: arguments, which mark the verdict themselves)
    exact: bool = True


#: statements that are judged; all others are refused
STATEMENTS: Final[Mapping[str, Statement]] = {
    "SelectStmt": Statement(_R, exact=False),
    "InsertStmt": Statement(_W, exact=False),
    "UpdateStmt": Statement(_W, exact=False),
    "DeleteStmt": Statement(_W, exact=False),
    "MergeStmt": Statement(_W, exact=False),
    "TransactionStmt": Statement(int(Effect.XACT_CONTROL), exact=False),
    "DeclareCursorStmt": Statement(_R, exact=False),
    "FetchStmt": Statement(_R, exact=False),
    "ClosePortalStmt": Statement(0, exact=False),
    # session
    "VariableSetStmt": Statement(0),
    "VariableShowStmt": Statement(_R),
    "DiscardStmt": Statement(0),
    "DeallocateStmt": Statement(int(Effect.DEALLOCATES)),
    "PrepareStmt": Statement(0),
    "ExecuteStmt": Statement(_OPAQUE | int(Effect.EXECUTES)),
    "ListenStmt": Statement(0),
    "UnlistenStmt": Statement(0),
    "NotifyStmt": Statement(_W),
    "ConstraintsSetStmt": Statement(0),
    "LockStmt": Statement(_W),
    # code
    "CallStmt": Statement(_OPAQUE),
    "DoStmt": Statement(_OPAQUE),
    "ExplainStmt": Statement(_R),
    "CopyStmt": Statement(0),
    # upkeep
    "TruncateStmt": Statement(_W),
    "VacuumStmt": Statement(_W),
    "ClusterStmt": Statement(_W),
    "ReindexStmt": Statement(_W),
    "RefreshMatViewStmt": Statement(_W),
    # definitions
    **{
        tag: Statement(_DDL | (_GROWS if tag in _CREATES else 0))
        for tag in (
            "AlterCollationStmt",
            "AlterDefaultPrivilegesStmt",
            "AlterDomainStmt",
            "AlterEnumStmt",
            "AlterFunctionStmt",
            "AlterObjectSchemaStmt",
            "AlterOperatorStmt",
            "AlterOwnerStmt",
            "AlterPolicyStmt",
            "AlterSeqStmt",
            "AlterStatsStmt",
            "AlterTSConfigurationStmt",
            "AlterTSDictionaryStmt",
            "AlterTableStmt",
            "CommentStmt",
            "CompositeTypeStmt",
            "CreateCastStmt",
            "CreateDomainStmt",
            "CreateEnumStmt",
            "CreateFunctionStmt",
            "CreatePolicyStmt",
            "CreateRangeStmt",
            "CreateSeqStmt",
            "CreateStatsStmt",
            "CreateStmt",
            "CreateTableAsStmt",
            "CreateTrigStmt",
            "DefineStmt",
            "DropStmt",
            "GrantStmt",
            "IndexStmt",
            "RenameStmt",
            "RuleStmt",
            "ViewStmt",
        )
    },
}

_SERVER = "it changes or reads the whole server"
_ROLES = "roles are the platform's to manage"
_DATABASES = "it is about whole databases"
_SCHEMAS = "schemas are the platform's to manage"
_FOREIGN = "foreign servers lead outside the tenant"
_REPLICATION = "it replicates outside the tenant"
_CODE = "it installs code or definitions for all tenants"

#: statement -> what to call it, and why it is refused
REFUSED: Final[Mapping[str, tuple[str, str]]] = {
    "AlterSystemStmt": ("ALTER SYSTEM", _SERVER),
    "CheckPointStmt": ("CHECKPOINT", _SERVER),
    "LoadStmt": ("LOAD", _CODE),
    "CreateRoleStmt": ("CREATE ROLE", _ROLES),
    "AlterRoleStmt": ("ALTER ROLE", _ROLES),
    "AlterRoleSetStmt": ("ALTER ROLE SET", _ROLES),
    "DropRoleStmt": ("DROP ROLE", _ROLES),
    "GrantRoleStmt": ("GRANT of a role", _ROLES),
    "ReassignOwnedStmt": ("REASSIGN OWNED", _ROLES),
    "DropOwnedStmt": ("DROP OWNED", _ROLES),
    "CreatedbStmt": ("CREATE DATABASE", _DATABASES),
    "AlterDatabaseStmt": ("ALTER DATABASE", _DATABASES),
    "AlterDatabaseSetStmt": ("ALTER DATABASE SET", _DATABASES),
    "AlterDatabaseRefreshCollStmt": ("ALTER DATABASE", _DATABASES),
    "DropdbStmt": ("DROP DATABASE", _DATABASES),
    "CreateSchemaStmt": ("CREATE SCHEMA", _SCHEMAS),
    "CreateTableSpaceStmt": ("CREATE TABLESPACE", _SERVER),
    "AlterTableSpaceOptionsStmt": ("ALTER TABLESPACE", _SERVER),
    "DropTableSpaceStmt": ("DROP TABLESPACE", _SERVER),
    "AlterTableMoveAllStmt": ("ALTER TABLE ALL IN TABLESPACE", _SERVER),
    "CreateExtensionStmt": ("CREATE EXTENSION", _CODE),
    "AlterExtensionStmt": ("ALTER EXTENSION", _CODE),
    "AlterExtensionContentsStmt": ("ALTER EXTENSION", _CODE),
    "CreatePLangStmt": ("CREATE LANGUAGE", _CODE),
    "CreateTransformStmt": ("CREATE TRANSFORM", _CODE),
    "CreateAmStmt": ("CREATE ACCESS METHOD", _CODE),
    "CreateConversionStmt": ("CREATE CONVERSION", _CODE),
    "CreateOpClassStmt": ("CREATE OPERATOR CLASS", _CODE),
    "CreateOpFamilyStmt": ("CREATE OPERATOR FAMILY", _CODE),
    "AlterOpFamilyStmt": ("ALTER OPERATOR FAMILY", _CODE),
    "AlterTypeStmt": ("ALTER TYPE SET", _CODE),
    "AlterObjectDependsStmt": ("ALTER … DEPENDS ON EXTENSION", _CODE),
    "CreateEventTrigStmt": ("CREATE EVENT TRIGGER", _CODE),
    "AlterEventTrigStmt": ("ALTER EVENT TRIGGER", _CODE),
    "CreateFdwStmt": ("CREATE FOREIGN DATA WRAPPER", _FOREIGN),
    "AlterFdwStmt": ("ALTER FOREIGN DATA WRAPPER", _FOREIGN),
    "CreateForeignServerStmt": ("CREATE SERVER", _FOREIGN),
    "AlterForeignServerStmt": ("ALTER SERVER", _FOREIGN),
    "CreateUserMappingStmt": ("CREATE USER MAPPING", _FOREIGN),
    "AlterUserMappingStmt": ("ALTER USER MAPPING", _FOREIGN),
    "DropUserMappingStmt": ("DROP USER MAPPING", _FOREIGN),
    "CreateForeignTableStmt": ("CREATE FOREIGN TABLE", _FOREIGN),
    "ImportForeignSchemaStmt": ("IMPORT FOREIGN SCHEMA", _FOREIGN),
    "CreatePublicationStmt": ("CREATE PUBLICATION", _REPLICATION),
    "AlterPublicationStmt": ("ALTER PUBLICATION", _REPLICATION),
    "CreateSubscriptionStmt": ("CREATE SUBSCRIPTION", _REPLICATION),
    "AlterSubscriptionStmt": ("ALTER SUBSCRIPTION", _REPLICATION),
    "DropSubscriptionStmt": ("DROP SUBSCRIPTION", _REPLICATION),
    "SecLabelStmt": ("SECURITY LABEL", _SERVER),
}

#: refused statement -> the server's own words to a role without the right, and the field that they quote
SERVER_SAYS: Final[Mapping[str, tuple[str, str]]] = {
    "CheckPointStmt": ("permission denied to execute CHECKPOINT command", ""),
    "CreateRoleStmt": ("permission denied to create role", ""),
    "CreatedbStmt": ("permission denied to create database", ""),
    "CreateSubscriptionStmt": ("permission denied to create subscription", ""),
    "CreateTableSpaceStmt": ('permission denied to create tablespace "{}"', "tablespacename"),
    "CreateExtensionStmt": ('permission denied to create extension "{}"', "extname"),
    "CreateEventTrigStmt": ('permission denied to create event trigger "{}"', "trigname"),
    "CreateFdwStmt": ('permission denied to create foreign-data wrapper "{}"', "fdwname"),
}
