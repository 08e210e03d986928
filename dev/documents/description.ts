/**
 * The schema as shown in documents, with comments. Names in texts omit the schema. The server prints the texts, which
 * are the same on versions 15 to 19.
 */
export interface SchemaDescription {
  readonly comment: string | null;
  readonly domains: readonly DomainDescription[];
  /** The schema's other types: ranges, enumerations and composite types. */
  readonly types: readonly { readonly name: string; readonly comment: string | null }[];
  /** Tables first, then views; by name. */
  readonly relations: readonly RelationDescription[];
  readonly routines: readonly RoutineDescription[];
}

export interface DomainDescription {
  readonly name: string;
  /** Its base type, such as `text`. */
  readonly base: string;
  readonly notNull: boolean;
  readonly default: string | null;
  /** Definitions, such as `CHECK ((VALUE >= 0))`. */
  readonly checks: readonly string[];
  readonly comment: string | null;
}

export interface RelationDescription {
  readonly kind: 'table' | 'view' | 'materialized view';
  readonly name: string;
  readonly comment: string | null;
  readonly columns: readonly ColumnDescription[];
  /** Keys first, then checks. */
  readonly constraints: readonly ConstraintDescription[];
  /** Indexes without a constraint. */
  readonly indexes: readonly PartDescription[];
  readonly triggers: readonly PartDescription[];
}

export interface ColumnDescription {
  readonly name: string;
  /** Such as `bigint`, `node_kind`, `text[]`. */
  readonly type: string;
  /** Always false for a view's column. */
  readonly notNull: boolean;
  readonly identity: 'always' | 'by default' | null;
  /** Expression of a generated column. */
  readonly generated: string | null;
  readonly default: string | null;
  /** A view's column without a comment has that of its source column. */
  readonly comment: string | null;
}

export interface PartDescription {
  readonly name: string;
  readonly definition: string;
  readonly comment: string | null;
}

export interface ConstraintDescription extends PartDescription {
  readonly kind: 'primary key' | 'unique' | 'foreign key' | 'check' | 'exclusion';
  /** In the order of the definition. */
  readonly columns: readonly string[];
  /** The target of a foreign key. */
  readonly references: { readonly table: string; readonly columns: readonly string[] } | null;
}

export interface RoutineDescription {
  readonly kind: 'function' | 'procedure' | 'aggregate';
  readonly name: string;
  readonly comment: string | null;
  readonly arguments: readonly ArgumentDescription[];
  /** Such as `integer`, `SETOF nodes`, `trigger`; `record` if the arguments list the columns. */
  readonly result: string;
  readonly setReturning: boolean;
  /** Expected number of rows in its definition; 1 if it returns at most one row. */
  readonly rows: number;
  readonly volatility: 'immutable' | 'stable' | 'volatile';
  /** It runs with the rights of its owner. */
  readonly securityDefiner: boolean;
}

export interface ArgumentDescription {
  readonly name: string | null;
  readonly type: string;
  /** `table`: a column of `returns table`. */
  readonly mode: 'in' | 'out' | 'inout' | 'variadic' | 'table';
  readonly default: string | null;
}
