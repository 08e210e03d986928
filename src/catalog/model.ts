/** The schema that the model is of; names in a model are names in it. */
export const MODELLED_SCHEMA = 'filestore';

/** What stands in the schema itself. */
export type TopLevelKind =
  | 'schema'
  | 'domain'
  | 'type'
  | 'sequence'
  | 'table'
  | 'view'
  | 'materialized view'
  | 'function'
  | 'procedure'
  | 'aggregate';

/** What stands in one of those. */
export type PartKind =
  | 'column'
  | 'constraint'
  | 'index'
  | 'statistics'
  | 'trigger'
  | 'rule'
  | 'policy'
  | 'privilege';

export type ObjectKind = TopLevelKind | PartKind;

/** Every kind, in the order in which a model lists them. */
export const OBJECT_KINDS: readonly ObjectKind[] = [
  ...(['schema', 'domain', 'type', 'sequence', 'table', 'view', 'materialized view'] as const),
  ...(['function', 'procedure', 'aggregate'] as const),
  ...(['column', 'constraint', 'index', 'statistics', 'trigger', 'rule', 'policy', 'privilege'] as const),
];

/** An object of the catalog. Kind and name together are unique among its neighbours. */
export interface CatalogObject {
  readonly kind: ObjectKind;
  /** As it stands in SQL, quoted where need be, without the schema; a function's with its argument types. */
  readonly name: string;
  /** Everything else that matters about it, in the server's words where it has some. May have several lines. */
  readonly definition: string;
  /** What belongs to it: columns in their physical order, then everything else by kind and name. */
  readonly parts: readonly CatalogObject[];
}

/** What tells an object from its neighbours. */
export function keyOf({ kind, name }: Pick<CatalogObject, 'kind' | 'name'>): string {
  return `${kind} ${name}`;
}

/** Everything in the schema but comments, owners, and privileges of named roles, which are an operator's business. */
export interface CatalogModel {
  /** By kind and name. Empty when there is no such schema. */
  readonly objects: readonly CatalogObject[];
}

/** A model that was read from a server. */
export interface LiveCatalog extends CatalogModel {
  /** Major version of the server, such as 18. */
  readonly serverMajor: number;
}

/** How people call an object: `column filestore.nodes.path`, `privilege EXECUTE of function filestore.f(bigint)`. */
export function describeObject(object: CatalogObject, owner: CatalogObject | null): string {
  const { kind, name } = object;
  if (owner === null) return kind === 'schema' ? `schema ${name}` : `${kind} ${MODELLED_SCHEMA}.${name}`;
  if (kind === 'privilege') return `${kind} ${name} of ${describeObject(owner, null)}`;
  // An index has the schema's names; everything else has its owner's.
  if (kind === 'index') return `${kind} ${MODELLED_SCHEMA}.${name}`;
  return `${kind} ${MODELLED_SCHEMA}.${owner.name}.${name}`;
}
