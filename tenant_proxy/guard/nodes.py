"""The parse tree as pglast's JSON gives it: which nodes and fields the guard knows.

A node or field that is not in this table makes the judge refuse the statement, so what a later
grammar adds is closed until somebody has looked at it.  A test holds the table against pglast's own
description of the tree.

`name` is a field without nodes in it (a scalar, or a list of names that a rule of the node judges),
`name:` a node, `name*` a list of nodes, `name=Type` a node that stands without its tag.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_TABLE: Final = """
ATAlterConstraint: conname alterEnforceability is_enforced alterDeferrability deferrable initdeferred
    alterInheritability noinherit
A_ArrayExpr: elements* list_start list_end location
A_Expr: kind name lexpr: rexpr: rexpr_list_start rexpr_list_end location
A_Indices: is_slice lidx: uidx:
A_Indirection: arg: indirection*
AccessPriv: priv_name cols
Alias: aliasname colnames
AlterCollationStmt: collname
AlterDefaultPrivilegesStmt: options* action=GrantStmt
AlterDomainStmt: subtype typeName name def: behavior missing_ok
AlterEnumStmt: typeName oldVal newVal newValNeighbor newValIsAfter skipIfNewValExists
AlterFunctionStmt: objtype func=ObjectWithArgs actions*
AlterObjectSchemaStmt: objectType relation object: newschema missing_ok
AlterOperatorStmt: opername=ObjectWithArgs options*
AlterOwnerStmt: objectType relation object: newowner=RoleSpec
AlterPolicyStmt: policy_name table roles* qual: with_check:
AlterSeqStmt: sequence options* for_identity missing_ok
AlterStatsStmt: defnames stxstattarget: missing_ok
AlterTSConfigurationStmt: kind cfgname tokentype dicts override replace missing_ok
AlterTSDictionaryStmt: dictname options*
AlterTableCmd: subtype name num newowner=RoleSpec def: behavior missing_ok recurse
AlterTableStmt: relation cmds* objtype missing_ok
BoolExpr: boolop args* location
BooleanTest: arg: booltesttype location
CTECycleClause: cycle_col_list cycle_mark_column cycle_mark_value: cycle_mark_default: cycle_path_column
    location cycle_mark_typmod
CTESearchClause: search_col_list search_breadth_first search_seq_column location
CallStmt: funccall=FuncCall
CaseExpr: arg: args* defresult: location
CaseWhen: expr: result: location
ClosePortalStmt: portalname
ClusterStmt: relation indexname params*
CoalesceExpr: args* location
CollateClause: arg: collname location
ColumnDef: colname typeName=TypeName compression inhcount is_local is_not_null is_from_type storage
    storage_name raw_default: cooked_default: identity identitySequence=RangeVar generated
    collClause=CollateClause constraints* fdwoptions* location
ColumnRef: fields location
CommentStmt: objtype object: comment
CommonTableExpr: ctename aliascolnames ctematerialized ctequery: search_clause=CTESearchClause
    cycle_clause=CTECycleClause location cterecursive cterefcount ctecolnames* ctecoltypes* ctecoltypmods*
    ctecolcollations*
CompositeTypeStmt: typevar coldeflist*
Constraint: contype conname deferrable initdeferred is_enforced skip_validation initially_valid
    is_no_inherit raw_expr: cooked_expr generated_when generated_kind nulls_not_distinct keys
    without_overlaps including exclusions* options* indexname indexspace reset_default_tblspc
    access_method where_clause: pktable=RangeVar fk_attrs pk_attrs fk_with_period pk_with_period
    fk_matchtype fk_upd_action fk_del_action fk_del_set_cols old_conpfeqop location
ConstraintsSetStmt: constraints deferred
CopyStmt: relation query: attlist is_from is_program filename options* whereClause:
CreateCastStmt: sourcetype=TypeName targettype=TypeName func=ObjectWithArgs context inout
CreateDomainStmt: domainname typeName=TypeName collClause=CollateClause constraints*
CreateEnumStmt: typeName vals
CreateFunctionStmt: is_procedure replace funcname parameters* returnType=TypeName options* sql_body:
CreatePolicyStmt: policy_name table cmd_name permissive roles* qual: with_check:
CreateRangeStmt: typeName params*
CreateSeqStmt: sequence options* for_identity if_not_exists
CreateStatsStmt: defnames stat_types exprs* relations* stxcomment transformed if_not_exists
CreateStmt: relation tableElts* inhRelations* partbound=PartitionBoundSpec partspec=PartitionSpec
    ofTypename=TypeName constraints* nnconstraints* options* oncommit tablespacename accessMethod
    if_not_exists
CreateTableAsStmt: query: into=IntoClause objtype is_select_into if_not_exists
CreateTrigStmt: replace isconstraint trigname relation funcname args row timing events columns whenClause:
    transitionRels* deferrable initdeferred constrrel=RangeVar
DeallocateStmt: name isall location
DeclareCursorStmt: portalname options query:
DefElem: defnamespace defname arg: defaction location arg_location
DefineStmt: kind oldstyle defnames args* definition* if_not_exists replace
DeleteStmt: relation usingClause* whereClause: returningClause=ReturningClause withClause=WithClause
DiscardStmt: target
DoStmt: args*
DropStmt: objects* removeType behavior missing_ok concurrent
ExecuteStmt: name params*
ExplainStmt: query: options*
FetchStmt: direction howMany portalname ismove
FuncCall: funcname args* agg_order* agg_filter: over=WindowDef agg_within_group agg_star agg_distinct
    func_variadic funcformat location
FunctionParameter: name argType=TypeName mode defexpr: location
GrantStmt: is_grant targtype objtype objects* privileges* grantees* grant_option grantor=RoleSpec behavior
GroupingFunc: args* refs agglevelsup location
GroupingSet: kind content* location
IndexElem: name expr: indexcolname collation opclass opclassopts* ordering nulls_ordering
IndexStmt: idxname relation accessMethod tableSpace indexParams* indexIncludingParams* options*
    whereClause: excludeOpNames idxcomment oldNumber oldCreateSubid oldFirstRelfilelocatorSubid unique
    nulls_not_distinct primary isconstraint iswithoutoverlaps deferrable initdeferred transformed
    concurrent if_not_exists reset_default_tblspc
InferClause: indexElems* whereClause: conname location
InsertStmt: relation cols* selectStmt: onConflictClause=OnConflictClause returningClause=ReturningClause
    withClause=WithClause override
IntoClause: rel colNames accessMethod options* onCommit tableSpaceName skipData
JoinExpr: jointype isNatural larg: rarg: usingClause join_using_alias=Alias quals: alias=Alias rtindex
JsonAggConstructor: output=JsonOutput agg_filter: agg_order* over=WindowDef location
JsonArgument: val=JsonValueExpr name
JsonArrayAgg: constructor=JsonAggConstructor arg=JsonValueExpr absent_on_null
JsonArrayConstructor: exprs* output=JsonOutput absent_on_null location
JsonArrayQueryConstructor: query: output=JsonOutput format=JsonFormat absent_on_null location
JsonBehavior: btype expr: coerce location
JsonFormat: format_type encoding location
JsonFuncExpr: op column_name context_item=JsonValueExpr pathspec: passing* output=JsonOutput
    on_empty=JsonBehavior on_error=JsonBehavior wrapper quotes location
JsonIsPredicate: expr: format=JsonFormat item_type unique_keys location
JsonKeyValue: key: value=JsonValueExpr
JsonObjectAgg: constructor=JsonAggConstructor arg=JsonKeyValue absent_on_null unique
JsonObjectConstructor: exprs* output=JsonOutput absent_on_null unique location
JsonOutput: typeName=TypeName returning=JsonReturning
JsonParseExpr: expr=JsonValueExpr output=JsonOutput unique_keys location
JsonReturning: format=JsonFormat typmod
JsonScalarExpr: expr: output=JsonOutput location
JsonSerializeExpr: expr=JsonValueExpr output=JsonOutput location
JsonTable: context_item=JsonValueExpr pathspec=JsonTablePathSpec passing* columns* on_error=JsonBehavior
    alias=Alias lateral location
JsonTableColumn: coltype name typeName=TypeName pathspec=JsonTablePathSpec format=JsonFormat wrapper
    quotes columns* on_empty=JsonBehavior on_error=JsonBehavior location
JsonTablePathSpec: string: name name_location location
JsonValueExpr: raw_expr: formatted_expr: format=JsonFormat
List: items*
ListenStmt: conditionname
LockStmt: relations* mode nowait
LockingClause: lockedRels* strength waitPolicy
MergeStmt: relation sourceRelation: joinCondition: mergeWhenClauses* returningClause=ReturningClause
    withClause=WithClause
MergeWhenClause: matchKind commandType override condition: targetList* values*
MinMaxExpr: op args* location
MultiAssignRef: source: colno ncolumns
NamedArgExpr: arg: name argnumber location
NotifyStmt: conditionname payload payload_location
NullTest: arg: nulltesttype argisrow location
ObjectWithArgs: objname objargs* objfuncargs* args_unspecified
OnConflictClause: action infer=InferClause targetList* whereClause: location
PartitionBoundSpec: strategy is_default modulus remainder listdatums* lowerdatums* upperdatums* location
PartitionCmd: name=RangeVar bound=PartitionBoundSpec concurrent
PartitionElem: name expr: collation opclass location
PartitionRangeDatum: kind value: location
PartitionSpec: strategy partParams* location
PrepareStmt: name argtypes* query:
RangeFunction: lateral ordinality is_rowsfrom functions* alias=Alias coldeflist*
RangeSubselect: lateral subquery: alias=Alias
RangeTableFunc: lateral docexpr: rowexpr: namespaces* columns* alias=Alias location
RangeTableFuncCol: colname typeName=TypeName for_ordinality is_not_null colexpr: coldefexpr: location
RangeTableSample: relation: method args* repeatable: location
RangeVar: catalogname schemaname relname inh relpersistence alias=Alias location
RefreshMatViewStmt: concurrent skipData relation
ReindexStmt: kind relation name params*
RenameStmt: renameType relationType relation object: subname newname behavior missing_ok
ReplicaIdentityStmt: identity_type name
ResTarget: name indirection* val: location
ReturnStmt: returnval:
ReturningClause: options* exprs*
RoleSpec: roletype rolename location
RowExpr: args* row_format colnames location
RuleStmt: relation rulename whereClause: event instead actions* replace
SQLValueFunction: op typmod location
SelectStmt: distinctClause* intoClause=IntoClause targetList* fromClause* whereClause: groupClause*
    groupDistinct havingClause: windowClause* valuesLists* sortClause* limitOffset: limitCount:
    limitOption lockingClause* withClause=WithClause op all larg=SelectStmt rarg=SelectStmt
SortBy: node: sortby_dir sortby_nulls useOp location
StatsElem: name expr:
SubLink: subLinkType subLinkId testexpr: operName subselect: location
TableLikeClause: relation=RangeVar options
TransactionStmt: kind options* savepoint_name gid chain location
TriggerTransition: name isNew isTable
TruncateStmt: relations* restart_seqs behavior
TypeCast: arg: typeName=TypeName location
TypeName: names setof pct_type typmods* typemod arrayBounds* location
UnlistenStmt: conditionname
UpdateStmt: relation targetList* whereClause: fromClause* returningClause=ReturningClause
    withClause=WithClause
VacuumRelation: relation va_cols
VacuumStmt: options* rels* is_vacuumcmd
VariableSetStmt: kind name args* jumble_args is_local location
VariableShowStmt: name
ViewStmt: view aliases query: replace options* withCheckOption
WindowDef: name refname partitionClause* orderClause* frameOptions startOffset: endOffset: location
WithClause: ctes* recursive location
XmlExpr: op name named_args* arg_names args* xmloption indent typmod location
XmlSerialize: xmloption expr: typeName=TypeName indent location
"""

SCALAR: Final = 0
NODE: Final = 1
LIST: Final = 2

#: node -> field -> SCALAR, NODE, LIST, or the type of a node without tag
Fields = Mapping[str, int | str]


def _parsed(table: str) -> dict[str, Fields]:
    nodes: dict[str, Fields] = {}
    for entry in table.strip().replace("\n    ", " ").splitlines():
        tag, _, fields = entry.partition(":")
        kinds: dict[str, int | str] = {}
        for field in fields.split():
            if field.endswith(":"):
                kinds[field[:-1]] = NODE
            elif field.endswith("*"):
                kinds[field[:-1]] = LIST
            elif "=" in field:
                name, _, kinds[name] = field.partition("=")
            else:
                kinds[field] = SCALAR
        nodes[tag] = kinds
    return nodes


#: node -> its fields; LEAVES apart
NODES: Final[Mapping[str, Fields]] = _parsed(_TABLE)

#: nodes that name nothing and have nothing below them
LEAVES: Final = frozenset(
    {
        "A_Const",
        "A_Star",
        "ParamRef",
        "String",
        "Integer",
        "Float",
        "Boolean",
        "BitString",
        "SetToDefault",
        "CurrentOfExpr",
        "MergeSupportFunc",
        "ReturningOption",
    }
)
